"""What holds of a model, tried on blank and random images of several shapes."""

from __future__ import annotations

import copy
from functools import cached_property

import safetensors.torch
import torch
from torch import Tensor, nn

from cutk.chance import isolated_rng
from cutk.data.samples import Shape
from cutk.errors import CutkError, UsageError, one_line
from cutk.testing import classes
from cutk.testing.classes import Subject, require_unchanged
from cutk.testing.findings import Check, check
from cutk.testing.states import difference, snapshot
from cutk.testing.surroundings import watched
from cutk.testing.verdicts import Unmet

__all__ = ["CHECKS", "Builds"]

SHAPES: tuple[Shape, ...] = ((1, 8, 8), (1, 28, 28), (3, 32, 32))
CLASSES = 7
BATCH = 2


def _images(shape: Shape, count: int = BATCH) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


class Builds(Subject):
    """A model and the networks that it builds."""

    def build(self, shape: Shape, seed: int = 0) -> nn.Module:
        """Return a network as the benchmark asks for it, under a seed of its own."""
        with isolated_rng(seed):
            network: nn.Module = self.make().build(shape, CLASSES)
        if not isinstance(network, nn.Module):
            raise Unmet(f"build() returned {type(network).__name__}")
        return network

    def attempt(self, shape: Shape) -> str:
        """Send images of ``shape`` through a new network; return why it refuses them, or an empty text.

        Raises:
            Unmet: if it neither takes them nor refuses them with a ``UsageError``.
        """
        label = "×".join(map(str, shape))
        try:
            with watched(), torch.no_grad(), isolated_rng(0):
                network = self.build(shape)
                for mode in (True, False):
                    _require_logits(network.train(mode)(_images(shape)), BATCH, label)
        except UsageError as error:
            return str(error)
        except CutkError:
            raise
        except Exception as error:
            raise Unmet(f"images of {label}: {one_line(error)}") from error
        return ""

    @cached_property
    def refusals(self) -> dict[Shape, str]:
        """Why each shape is refused; an empty text where it isn't."""
        return {shape: self.attempt(shape) for shape in SHAPES}

    @cached_property
    def shape(self) -> Shape:
        """The first shape that it takes."""
        return next(shape for shape, refusal in self.refusals.items() if not refusal)


def _require_logits(logits: object, count: int, label: str) -> None:
    expected = f"float32 [{count}, {CLASSES}]"
    if not isinstance(logits, Tensor):
        raise Unmet(f"for images of {label} it returns {type(logits).__name__} and not logits {expected}")
    if logits.shape != (count, CLASSES) or logits.dtype != torch.float32:
        came = f"{logits.dtype} {list(logits.shape)}".removeprefix("torch.")
        raise Unmet(f"for images of {label} it returns {came} and not logits {expected}")
    if not torch.isfinite(logits).all():
        raise Unmet(f"for images of {label} some logits are infinite or not a number")


@check(
    "Return float32 logits [B, num_classes] in training and in evaluation mode; raise cutk.UsageError from build() if "
    "the images have too few pixels or another number of channels than the network can take.",
    essential=True,
)
def images_become_logits(builds: Builds) -> str | None:
    """Grey and coloured images of several sizes become finite logits, or are refused with a UsageError."""
    refused = [f"{'×'.join(map(str, shape))} ({why})" for shape, why in builds.refusals.items() if why]
    if len(refused) == len(SHAPES):
        raise Unmet(f"it takes none of {len(SHAPES)} shapes of images: {refused[0]}")
    return f"it refuses {', '.join(refused)}" if refused else None


@check("Raise cutk.UsageError with the size that it needs and the size that came.")
def refusals_say_why(builds: Builds) -> None:
    """Images of one pixel are taken, or refused with a UsageError and not with an error from within."""
    builds.attempt((1, 1, 1))


@check("Take chance from torch's global state, which cutk seeds, and seed nothing yourself.")
def seed_decides_the_weights(builds: Builds) -> None:
    """The same seed gives the same weights; another seed gives others, if any are drawn."""
    first, second, other = (snapshot(builds.build(builds.shape, seed)) for seed in (1, 1, 2))
    if found := difference(first, second, "the weights"):
        raise Unmet(f"two networks under one seed differ in {found}")
    with isolated_rng(1):
        before = torch.get_rng_state()
        builds.make().build(builds.shape, CLASSES)
        draws = not torch.equal(before, torch.get_rng_state())
    if draws and not difference(first, other):
        raise Unmet("networks under two seeds are the same: the seed is set within build()")


@check("Use every layer that you make in forward(), without detach(), torch.no_grad() or a detour over NumPy.")
def gradients_reach_every_parameter(builds: Builds) -> None:
    """A loss on the logits has a gradient in every parameter that requires one."""
    with isolated_rng(0):
        network = builds.build(builds.shape).train()
        labels = torch.arange(BATCH) % CLASSES
        nn.functional.cross_entropy(network(_images(builds.shape)), labels).backward()  # type: ignore[no-untyped-call]
    parameters = dict(network.named_parameters())
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise Unmet("it has no parameter that requires a gradient")
    for name, parameter in parameters.items():
        if parameter.requires_grad and parameter.grad is None:
            raise Unmet(f"none reaches '{name}'")


@check("Let train() and eval() switch all that is random or depends on the batch: dropout, batch norm.")
def evaluation_is_deterministic(builds: Builds) -> None:
    """In evaluation mode an image's logits are the same every time, whatever else is in the batch."""
    network, images = builds.build(builds.shape).eval(), _images(builds.shape)
    with torch.no_grad():
        first, second = network(images), network(images)
        alone = torch.cat([network(image[None]) for image in images])
    if not torch.equal(first, second):
        raise Unmet("the same batch gives other logits the second time")
    if not torch.allclose(first, alone, atol=1e-3, rtol=1e-3):
        raise Unmet(f"alone an image gives other logits than in a batch, by up to {(first - alone).abs().max():.2g}")


@check("Keep all that a trained network needs in parameters and buffers, as tensors that a file can hold.")
def weights_survive_a_file(builds: Builds) -> None:
    """A network's weights can be written as safetensors and read into another, which then gives the same logits."""
    with isolated_rng(0):
        trained = builds.build(builds.shape, seed=1).train()
        with torch.no_grad():
            trained(_images(builds.shape))  # so that running statistics are no longer what they were
    own = {name: tensor.detach().clone().contiguous() for name, tensor in trained.state_dict().items()}
    other = builds.build(builds.shape, seed=2)
    other.load_state_dict(safetensors.torch.load(safetensors.torch.save(own)))
    with torch.no_grad():
        expected, logits = (network.eval()(_images(builds.shape)) for network in (trained, other))
    if not torch.equal(expected, logits):
        raise Unmet("the logits differ, so something that they depend on isn't in the state dict")


@check("Keep no generators, open files, locks or hooks that hold the network in its attributes.")
def copies_are_their_own(builds: Builds) -> None:
    """A deep copy of a network gives the same logits, and shares no weight with it."""
    network = builds.build(builds.shape).eval()
    twin = copy.deepcopy(network)
    with torch.no_grad():
        if not torch.equal(network(_images(builds.shape)), twin(_images(builds.shape))):
            raise Unmet("the copy gives other logits")
        before = snapshot(network)
        for parameter in twin.parameters():
            parameter.add_(1)
    if found := difference(before, snapshot(network), "the weights"):
        raise Unmet(f"training the copy changes {found} of the network")


@check("Put back what you set; modules that seed, switch or register globally do so for everyone.")
def nothing_global_is_left(builds: Builds) -> None:
    """Random states, grad mode, threads, dtypes, warnings, folder and environment are as they were."""
    with watched() as changed:
        network = builds.build(builds.shape).eval()
        with torch.no_grad():
            network(_images(builds.shape))
    require_unchanged(changed)


CHECKS: tuple[Check[Builds], ...] = (
    *classes.CHECKS,
    images_become_logits,
    refusals_say_why,
    seed_decides_the_weights,
    gradients_reach_every_parameter,
    evaluation_is_deterministic,
    weights_survive_a_file,
    copies_are_their_own,
    nothing_global_is_left,
)
