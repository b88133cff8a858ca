"""What is checked of a model, on random samples of several shapes."""

from __future__ import annotations

import copy
from functools import cached_property

import safetensors.torch
import torch
from torch import Tensor, nn

from cutk.chance import isolated_rng
from cutk.data.samples import Shape
from cutk.errors import UsageError, reason
from cutk.testing.components import Subject, all_checks
from cutk.testing.findings import Unmet, check
from cutk.testing.states import difference, snapshot

__all__ = ["CHECKS", "SUBJECT", "TriedModel"]

IMAGES: tuple[Shape, ...] = ((1, 8, 8), (1, 28, 28), (3, 32, 32))
VECTOR: Shape = (12,)
CLASSES = 7
BATCH = 2


def _shown(shape: Shape) -> str:
    return f"{shape[0]} values" if len(shape) == 1 else "×".join(map(str, shape))


def _require_logits(logits: object, label: str) -> Tensor:
    expected = f"float32 [{BATCH}, {CLASSES}]"
    if not isinstance(logits, Tensor):
        raise Unmet(f"for samples of {label} it returns {type(logits).__name__} and not logits {expected}")
    if logits.shape != (BATCH, CLASSES) or logits.dtype != torch.float32:
        came = f"{logits.dtype} {list(logits.shape)}".removeprefix("torch.")
        raise Unmet(f"for samples of {label} it returns {came} and not logits {expected}")
    if not torch.isfinite(logits).all():
        raise Unmet(f"for samples of {label} some logits are infinite or not a number")
    return logits


class TriedModel(Subject):
    """A model and the networks that it builds."""

    tokens = False

    def build(self, shape: Shape, seed: int = 0) -> nn.Module:
        """Return a network as the benchmark asks for it, under a seed of its own."""
        with isolated_rng(seed):
            network: nn.Module = self.make().build(shape, CLASSES)
        if not isinstance(network, nn.Module):
            raise Unmet(f"build() returned {type(network).__name__}")
        return network.to(self.device)

    def samples(self, shape: Shape) -> Tensor:
        """Return a batch: numbers as a normalised one has them, or tokens if the model takes these alone."""
        generator = torch.Generator().manual_seed(0)
        if self.tokens and shape == VECTOR:
            return torch.randint(0, 2, (BATCH, *shape), generator=generator).to(self.device)
        return torch.randn(BATCH, *shape, generator=generator).to(self.device)

    def attempt(self, shape: Shape) -> str:
        """Send samples of ``shape`` through a new network; return why it refuses them, or an empty text.

        Raises:
            Unmet: if it neither takes them nor refuses them with a ``UsageError``.
        """
        failure = Unmet("")
        for self.tokens in (False, True) if shape == VECTOR else (False,):  # a shape doesn't tell features from tokens
            try:
                with torch.no_grad(), isolated_rng(0):
                    network = self.build(shape)
                    for mode in (True, False):
                        _require_logits(network.train(mode)(self.samples(shape)), _shown(shape))
                return ""
            except UsageError as error:
                return str(error)
            except Unmet as error:
                failure = error
            except Exception as error:
                failure = Unmet(f"samples of {_shown(shape)}: {reason(error)}")
        raise failure

    @cached_property
    def refusals(self) -> dict[Shape, str]:
        """Why each shape is refused; an empty text where it isn't."""
        with self.apart():
            found = {shape: self.attempt(shape) for shape in IMAGES}
            if all(found.values()):  # it may be made for vectors
                found[VECTOR] = self.attempt(VECTOR)
        return found

    @cached_property
    def shape(self) -> Shape:
        """The first shape that it takes."""
        return next(shape for shape, refusal in self.refusals.items() if not refusal)

    def work(self) -> dict[str, Tensor]:
        """Build a network and send samples through it; return its weights and what it says of them."""
        network = self.build(self.shape, seed=1).eval()
        with torch.no_grad():
            return {**snapshot(network), "logits": network(self.samples(self.shape))}


@check(
    "Return float32 logits [B, num_classes] in training and in evaluation mode; raise cutk.UsageError from build() if "
    "the samples are of a form, size or number of channels that the network can't take.",
    essential=True,
)
def samples_become_logits(subject: TriedModel) -> str | None:
    """Images of several sizes, or vectors, become finite logits or are refused with a UsageError."""
    refused = [f"{_shown(shape)} ({why})" for shape, why in subject.refusals.items() if why]
    if len(refused) == len(subject.refusals):
        raise Unmet(f"it takes none of {len(refused)} shapes of samples: {refused[0]}")
    return f"it refuses {', '.join(refused)}" if refused else None


@check(
    "Begin build() with channels, height, width = self.require_images(shape) if it takes images alone, and raise "
    "cutk.UsageError with the size that it needs and the size that came."
)
def refusals_say_why(subject: TriedModel) -> None:
    """Images of one pixel, and vectors, are taken, or refused with a UsageError and not with an error from within."""
    with subject.apart():
        for shape in ((1, 1, 1), VECTOR):
            subject.attempt(shape)


@check("Take chance from torch's global state, which cutk seeds, and seed nothing yourself.")
def seed_decides_the_weights(subject: TriedModel) -> None:
    """Another seed gives other weights, if any are drawn."""
    with subject.apart(), isolated_rng(1):
        before = torch.get_rng_state()
        subject.make().build(subject.shape, CLASSES)
        draws = not torch.equal(before, torch.get_rng_state())
        first, other = (snapshot(subject.build(subject.shape, seed)) for seed in (1, 2))
    if draws and not difference(first, other):
        raise Unmet("networks under two seeds are the same: the seed is set within build()")


@check("Use every layer that you make in forward(), without detach(), torch.no_grad() or a detour over NumPy.")
def gradients_reach_every_parameter(subject: TriedModel) -> None:
    """A loss on the logits has a gradient in every parameter that requires one."""
    with subject.apart():
        network = subject.build(subject.shape).train()
        labels = (torch.arange(BATCH) % CLASSES).to(subject.device)
        nn.functional.cross_entropy(network(subject.samples(subject.shape)), labels).backward()  # type: ignore[no-untyped-call]
    parameters = dict(network.named_parameters())
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise Unmet("it has no parameter that requires a gradient")
    for name, parameter in parameters.items():
        if parameter.requires_grad and parameter.grad is None:
            raise Unmet(f"none reaches '{name}'")


@check("Let train() and eval() switch all that is random or depends on the batch: dropout, batch norm.")
def evaluation_is_deterministic(subject: TriedModel) -> None:
    """In evaluation mode a sample's logits are the same every time, whatever else is in the batch."""
    network, samples = subject.build(subject.shape).eval(), subject.samples(subject.shape)
    with subject.apart(), torch.no_grad():
        first, second = network(samples), network(samples)
        alone = torch.cat([network(sample[None]) for sample in samples])
    if not torch.equal(first, second):
        raise Unmet("the same batch gives other logits the second time")
    if not torch.allclose(first, alone, atol=1e-3, rtol=1e-3):
        raise Unmet(f"alone a sample gives other logits than in a batch, by up to {(first - alone).abs().max():.2g}")


@check("Keep all that a trained network needs in parameters and buffers, as tensors that a file can hold.")
def weights_survive_a_file(subject: TriedModel) -> None:
    """A network's weights can be written as safetensors and read into another, which then gives the same logits."""
    with subject.apart(), torch.no_grad():
        trained = subject.build(subject.shape, seed=1).train()
        trained(subject.samples(subject.shape))  # so that running statistics are no longer what they were
        own = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in trained.state_dict().items()}
        other = subject.build(subject.shape, seed=2)
        other.load_state_dict(safetensors.torch.load(safetensors.torch.save(own)))
        expected, logits = (network.eval()(subject.samples(subject.shape)) for network in (trained, other))
    if not torch.equal(expected, logits):
        raise Unmet("the logits differ, so something that they depend on isn't in the state dict")


@check("Keep no generators, open files, locks or hooks that hold the network in its attributes.")
def copies_are_their_own(subject: TriedModel) -> None:
    """A deep copy of a network gives the same logits, and shares no weight with it."""
    network, samples = subject.build(subject.shape).eval(), subject.samples(subject.shape)
    twin = copy.deepcopy(network)
    with subject.apart(), torch.no_grad():
        if not torch.equal(network(samples), twin(samples)):
            raise Unmet("the copy gives other logits")
        before = snapshot(network)
        for parameter in twin.parameters():
            parameter.add_(1)
    if found := difference(before, snapshot(network), "the weights"):
        raise Unmet(f"training the copy changes {found} of the network")


SUBJECT = TriedModel
CHECKS = all_checks(globals())
