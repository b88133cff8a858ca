"""The built-in networks beside the small ones: against published counts, by hand, and for all that users may ask."""

from __future__ import annotations

import sys
from dataclasses import replace
from math import prod

import pytest
import torch
from torch import nn

import cutk
from cutk.learning.network import layers
from cutk.plugins.registry import Entry, Provider
from cutk.problem.scenario import Scenario
from cutk.run.store import Store
from cutk.run.study import Study
from cutk_builtin.models import resnet_cifar, wide_resnet
from cutk_builtin.models.resnet_cifar import ResNet20, ResNet32, ResNet44, ResNet56, ResNet110
from cutk_builtin.models.timm import Timm
from cutk_builtin.models.torchvision import Torchvision
from cutk_builtin.models.wide_resnet import WideResNet


def count_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def build(model, shape=(3, 32, 32), num_classes=10, device="cpu", **options):
    with torch.device(device):
        return model(model.Options(**options)).build(shape, num_classes)


def outputs(network, *shape):
    """What the network returns for two images while it is trained, and when it is used."""
    x = torch.randn(2, *shape)
    return network.train()(x), network.eval()(x)


# Published counts.


@pytest.mark.parametrize(
    ("depth", "width", "millions"),
    [(28, 10, 36.5), (16, 8, 11.0), (40, 4, 8.9)],
)
def test_wide_resnet_has_as_many_parameters_as_published(depth, width, millions):
    network = build(WideResNet, device="meta", depth=depth, width=width)
    assert round(count_parameters(network) / 1e6, 1) == millions
    # What the depth counts: all convolutions, those of the shortcuts included.
    assert sum(isinstance(module, nn.Conv2d) for module in network.modules()) == depth


def test_the_default_is_the_wide_resnet_28_10_that_others_count():
    assert count_parameters(build(WideResNet, device="meta")) == 36_479_194


def authors_parameters(depth, width, channels, classes):
    """Count the parameters of the network in the benchmark's code, layer by layer; every convolution has a bias."""

    def convolution(into, out, side):
        return out * into * side * side + out

    count, into = convolution(channels, 16, 3), 16
    for out in (16 * width, 32 * width, 64 * width):
        for block in range((depth - 4) // 6):
            count += 2 * into + convolution(into, out, 3) + 2 * out + convolution(out, out, 3)
            if block == 0 and into != out:
                count += convolution(into, out, 1) + 2 * out
            into = out
    return count + into * classes + classes


@pytest.mark.parametrize(
    ("depth", "width", "channels", "classes"), [(28, 10, 3, 100), (28, 10, 3, 2), (16, 2, 1, 7), (10, 1, 3, 10)]
)
def test_the_authors_network_has_the_layers_of_their_code(depth, width, channels, classes):
    options = {"depth": depth, "width": width, "variant": "authors"}
    network = build(WideResNet, (channels, 32, 32), classes, device="meta", **options)
    assert count_parameters(network) == authors_parameters(depth, width, channels, classes)


def test_the_authors_wide_resnet_28_10_has_as_many_parameters_as_theirs():
    assert count_parameters(build(WideResNet, num_classes=100, device="meta", variant="authors")) == 36_547_940
    assert count_parameters(build(WideResNet, num_classes=100, device="meta")) == 36_536_884


@pytest.mark.parametrize(
    ("model", "millions", "digits"),
    [(ResNet20, 0.27, 2), (ResNet32, 0.46, 2), (ResNet44, 0.66, 2), (ResNet56, 0.85, 2), (ResNet110, 1.7, 1)],
)
def test_resnets_have_as_many_layers_and_parameters_as_published(model, millions, digits):
    network = build(model, device="meta")
    assert round(count_parameters(network) / 1e6, digits) == millions
    assert len(layers(network)) == model.depth


# The shape of what comes out.


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (4, 17, 9), (1, 8, 8), (2, 1, 1)])
@pytest.mark.parametrize(
    ("model", "options"),
    [
        (WideResNet, {"depth": 10, "width": 1}),
        (WideResNet, {"depth": 10, "width": 2, "variant": "authors"}),
        (ResNet20, {}),
    ],
)
def test_residual_networks_take_any_channels_and_size(model, options, shape):
    for logits in outputs(build(model, shape, 7, **options), *shape):
        assert logits.shape == (2, 7)


@pytest.mark.parametrize("variant", ["zagoruyko", "authors"])
@pytest.mark.parametrize(("depth", "width"), [(10, 1), (16, 2)])
def test_wide_resnet_has_the_widths_and_sizes_of_table_1(depth, width, variant):
    network = build(WideResNet, depth=depth, width=width, variant=variant)
    x, sizes = torch.zeros(1, 3, 32, 32), []
    for module in network[:4]:
        x = module(x)
        sizes.append(tuple(x.shape[1:]))
    assert sizes == [(16, 32, 32), (16 * width, 32, 32), (32 * width, 16, 16), (64 * width, 8, 8)]
    assert [len(group) for group in network[1:4]] == [(depth - 4) // 6] * 3
    # A shortcut has weights where the number of channels changes, and nowhere else.
    shortcuts = [block.shortcut is not None for group in network[1:4] for block in group]
    assert sum(shortcuts) == (2 if width == 1 else 3)


@pytest.mark.parametrize("variant", ["zagoruyko", "authors"])
def test_wide_resnet_drops_between_the_convolutions(variant):
    network = build(WideResNet, depth=10, width=1, dropout=0.3, variant=variant)
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)] == [0.3] * 3
    first, second = (network.train()(torch.ones(2, 3, 8, 8)) for _ in range(2))
    assert not torch.equal(first, second)


def test_a_wide_block_is_what_the_paper_writes():
    torch.manual_seed(0)
    block = wide_resnet.Block(2, 3, 2, 0.5).eval()
    x = torch.randn(2, 2, 5, 5)
    first, _, _, second = block.residual
    scale = 1 / (1 + 1e-5) ** 0.5  # an untrained batch norm in eval mode
    active = (x * scale).clamp(min=0)
    inner = nn.functional.conv2d(active, first.weight, stride=2, padding=1)
    residual = nn.functional.conv2d((inner * scale).clamp(min=0), second.weight, padding=1)
    expected = residual + nn.functional.conv2d(active, block.shortcut.weight, stride=2)
    torch.testing.assert_close(block(x), expected)


def test_the_authors_block_strides_late_and_normalises_its_shortcut():
    torch.manual_seed(0)
    block = wide_resnet.AuthorsBlock(2, 3, 2, 0.5).eval()
    x = torch.randn(2, 2, 5, 5)
    first, _, _, second = block.residual
    across, after = block.shortcut
    after.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    after.running_var.copy_(torch.tensor([4.0, 9.0, 16.0]))
    scale = 1 / (1 + 1e-5) ** 0.5  # an untrained batch norm in eval mode
    inner = nn.functional.conv2d((x * scale).clamp(min=0), first.weight, first.bias, padding=1)
    assert inner.shape[2:] == (5, 5)
    residual = nn.functional.conv2d((inner * scale).clamp(min=0), second.weight, second.bias, stride=2, padding=1)
    raw = nn.functional.conv2d(x, across.weight, across.bias, stride=2)
    mean, deviation = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 9.0, 16.0]).sqrt()
    expected = residual + (raw - mean[:, None, None]) / deviation[:, None, None]
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)
    same = wide_resnet.AuthorsBlock(2, 2, 1, 0.5).eval()
    assert same.shortcut is None
    nn.init.zeros_(same.residual[-1].weight)
    nn.init.zeros_(same.residual[-1].bias)
    assert torch.equal(same(x), x)


def test_nothing_stands_between_the_authors_last_block_and_the_pooling():
    torch.manual_seed(0)
    theirs = build(WideResNet, depth=10, width=1, variant="authors").eval()
    x = torch.randn(2, 3, 8, 8)
    blocks, head = theirs[:4], theirs[-1]
    features = blocks(x)
    assert (features < 0).any()
    torch.testing.assert_close(theirs(x), features.mean((2, 3)) @ head.weight.T + head.bias)
    ours = build(WideResNet, depth=10, width=1)
    assert [type(module) for module in ours[4]] == [nn.BatchNorm2d, nn.ReLU]


# Option A.


def test_a_shortcut_without_parameters_subsamples_and_fills_with_zeros():
    x = torch.tensor([[[[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]]])
    by_hand = torch.tensor([[[[1.0, 3], [7, 9]], [[0, 0], [0, 0]]]])
    assert torch.equal(resnet_cifar.shortcut(x, 2, 2), by_hand)
    assert resnet_cifar.shortcut(x, 1, 1) is x


def test_a_block_whose_residual_is_zero_is_its_shortcut():
    block = resnet_cifar.Block(1, 2, 2)
    nn.init.zeros_(block.residual[-1].weight)
    x = torch.arange(-8.0, 8.0).reshape(1, 1, 4, 4)
    assert torch.equal(block(x), torch.tensor([[[[0.0, 0], [0, 2]], [[0, 0], [0, 0]]]]))


# Initialisation.


@pytest.mark.parametrize(
    ("model", "options", "shape"),
    [
        (WideResNet, {"depth": 10, "width": 2}, (3, 32, 32)),
        (ResNet20, {}, (3, 32, 32)),
        (Torchvision, {"architecture": "squeezenet1_1"}, (1, 32, 32)),
        (Torchvision, {"architecture": "shufflenet_v2_x0_5"}, (3, 32, 32)),
        (Timm, {"architecture": "test_vit"}, (1, 32, 32)),
        (Timm, {"architecture": "test_efficientnet"}, (3, 32, 32)),
    ],
)
def test_a_seed_fixes_the_initialisation(model, options, shape):
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([p.detach().flatten() for p in build(model, shape, **options).parameters()])

    first, again, other = weights(1), weights(1), weights(2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("model", [WideResNet, ResNet20])
def test_initial_weights_are_hes(model):
    torch.manual_seed(0)
    options = {"depth": 10, "width": 4} if model is WideResNet else {}
    network = build(model, **options)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 4000:
            expected = (2 / prod(module.weight.shape[1:])) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.05)
    assert (network[-1].bias == 0).all()


def test_the_authors_initial_weights_are_pytorchs_and_their_biases_zero():
    torch.manual_seed(0)
    network = build(WideResNet, depth=10, width=4, variant="authors")
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert (module.bias == 0).all()
            if module.weight.numel() > 4000:  # uniform within ± 1 / √fan-in
                bound = prod(module.weight.shape[1:]) ** -0.5
                assert 0.95 * bound < module.weight.abs().max().item() <= 1.0001 * bound
                assert module.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


# Options.


@pytest.mark.parametrize("depth", [27, 30, 11])
def test_a_depth_that_does_not_divide_is_refused(depth):
    with pytest.raises(cutk.UsageError) as error:
        build(WideResNet, depth=depth)
    expected = "expected 6n + 4, such as 16, 22, 28 or 40"
    assert str(error.value) == f"Option 'wide-resnet.depth': {expected}, got {depth}."


# torchvision.


def test_the_package_torchvision_is_the_real_one():
    module = sys.modules[Torchvision.__module__]
    assert module.__name__ == "cutk_builtin.models.torchvision"
    assert module.zoo() is sys.modules["torchvision.models"]
    assert not sys.modules["torchvision"].__file__.startswith(module.__file__.removesuffix("torchvision.py"))


@pytest.mark.parametrize(
    ("architecture", "shape"),
    [
        ("resnet18", (3, 8, 8)),
        ("shufflenet_v2_x0_5", (1, 32, 32)),
        ("vit_b_16", (3, 32, 32)),
        ("googlenet", (1, 32, 32)),
        ("inception_v3", (3, 75, 75)),
    ],
)
def test_torchvision_returns_logits_alone_in_both_modes(architecture, shape):
    for logits in outputs(build(Torchvision, shape, 7, architecture=architecture), *shape):
        assert logits.shape == (2, 7)


def test_torchvision_sees_a_grey_image_in_three_channels():
    network = build(Torchvision, (1, 32, 32), architecture="squeezenet1_1").eval()
    x = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(network(x), network[1](torch.cat([x, x, x], 1)))


@pytest.mark.parametrize("architecture", ["fasterrcnn_resnet50_fpn", "fcn_resnet50", "r3d_18", "quantized_resnet18"])
def test_torchvision_offers_classifiers_alone(architecture):
    with pytest.raises(cutk.UsageError, match=f"^torchvision has no classifier '{architecture}'"):
        build(Torchvision, architecture=architecture)


def test_torchvision_refuses_what_it_has_not():
    with pytest.raises(cutk.UsageError, match=r"^torchvision has no classifier 'resnet81'. Did you mean 'resnet18'\?"):
        build(Torchvision, architecture="resnet81")
    with pytest.raises(cutk.UsageError, match="torchvision's classifiers expect images of 1 or 3 channels, got 2"):
        build(Torchvision, (2, 32, 32))


# timm.


@pytest.mark.parametrize("architecture", ["test_vit", "test_resnet", "test_convnext"])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 64, 32)])
def test_timm_takes_any_channels_and_size(architecture, shape):
    for logits in outputs(build(Timm, shape, 7, architecture=architecture), *shape):
        assert logits.shape == (2, 7)


@pytest.mark.parametrize(
    ("architecture", "hint"),
    [
        ("resnet81", " Did you mean 'resnet18'?"),
        ("resnet18.a1_in1k", " Did you mean 'resnet18'?"),
        # Nothing is fetched: neither a repository nor a folder is a name that timm lists.
        ("hf-hub:timm/repository", ""),
    ],
)
def test_timm_refuses_what_it_does_not_list(architecture, hint):
    with pytest.raises(cutk.UsageError) as error:
        build(Timm, architecture=architecture)
    assert str(error.value) == f"timm has no model '{architecture}'.{hint} See: timm.list_models()"


def test_timm_may_be_missing(monkeypatch, run, tmp_path):
    monkeypatch.setitem(sys.modules, "timm", None)
    ran = run(*BENCH, "--model", "timm:resnet18")
    assert ran.code == 2
    assert ran.err == "Error: timm's models need the package timm: pip install 'cutk[timm]'\n"
    assert list(tmp_path.iterdir()) == []


# Whether a model fits the images is asked before anything is trained.

BENCH = ("bench", "-d", "fake", "-u", "none", "--alpha", "1", "--seeds", "1", "--device", "cpu", "--dry-run")
FAKE32 = ("-o", "fake.channels=3", "-o", "fake.size=32", "-o", "fake.samples=100")


def test_images_that_are_too_small_are_refused_before_anything_is_written(run, tmp_path):
    ran = run(*BENCH, *FAKE32, "--model", "torchvision:alexnet")
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.startswith("Error: The model 'torchvision:alexnet' can't take images of 3×32×32: RuntimeError: ")
    assert ran.err.endswith("Output size is too small. Choose another with --model, or larger images.\n")
    assert ran.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_images_that_the_network_cannot_be_built_for_are_refused(run):
    ran = run(*BENCH, *FAKE32, "--model", "torchvision:maxvit_t")
    assert ran.code == 2
    assert ran.err.startswith("Error: The model 'torchvision:maxvit_t' can't take images of 3×32×32: ValueError: ")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("model", ["torchvision:squeezenet1_1", "timm:test_vit", "resnet20"])
def test_a_model_that_fits_is_planned_for(run, model):
    ran = run(*BENCH, *FAKE32, "--model", model)
    assert ran.code == 0, ran.err
    assert "3 of 3 cells to compute" in ran.out


def test_a_bad_depth_is_named_on_the_command_line(run):
    ran = run(*BENCH, "--model", "wide-resnet", "-o", "wide-resnet.depth=27")
    assert ran.code == 2
    assert ran.err.startswith("Error: Option 'wide-resnet.depth': expected 6n + 4")
    ran = run(*BENCH, "--model", "wide-resnet", "-o", "wide-resnet.depth=4")
    assert ran.err == "Error: Option 'wide-resnet.depth': expected an integer ≥ 10, got '4'.\n"


class Odd(cutk.Model):
    """Returns what the test says."""

    name = "odd"
    returned = None

    def build(self, shape, num_classes):
        class Network(nn.Module):
            def forward(_, x):
                assert not torch.is_grad_enabled()
                assert x.shape == (2, *shape)
                return self.returned

        return Network()


def scenario_of(model, registry, recipe):
    dataset = registry.get("dataset", "fake").component
    manipulation = registry.get("manipulation", "badnet").component
    identification = registry.get("identification", "uniform").component()
    splits = dataset(dataset.Options(samples=100)).load()
    return Scenario(splits, [("badnet", manipulation())], model, recipe, seed=0, identification=identification)


@pytest.mark.parametrize(
    ("returned", "came"),
    [
        (torch.zeros(2, 5), "float32 [2, 5]"),
        (torch.zeros(2, 4, 1), "float32 [2, 4, 1]"),
        (torch.zeros(2, 4, dtype=torch.int64), "int64 [2, 4]"),
        ((torch.zeros(2, 4), None), "tuple"),
        (None, "NoneType"),
    ],
)
def test_a_model_must_return_logits(registry, tiny_recipe, monkeypatch, returned, came):
    monkeypatch.setattr(Odd, "returned", returned)
    with pytest.raises(cutk.UsageError) as error:
        scenario_of(Odd(), registry, tiny_recipe).check_model("mine:odd")
    assert str(error.value) == (
        "The model 'mine:odd' doesn't fit images of 1×8×8 in 4 classes: "
        f"expected logits float32 [2, 4] for two of them, got {came}. Choose another with --model."
    )


def test_looking_at_a_model_changes_nothing(registry, tiny_recipe, monkeypatch):
    monkeypatch.setattr(Odd, "returned", torch.zeros(2, 4))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    scenario_of(Odd(), registry, tiny_recipe).check_model("odd")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


def test_what_a_model_says_itself_is_passed_on(setup_of, tmp_path, monkeypatch):
    entry = Entry("model", "odd", Odd, Provider("mine", "1", "odd"))
    setup = setup_of()
    setup = replace(setup, model=replace(setup.model, entry=entry, points=(Odd.Options(),)))

    def refuse(error):
        monkeypatch.setattr(Odd, "build", lambda self, shape, num_classes: (_ for _ in ()).throw(error))
        with pytest.raises(cutk.CutkError) as raised:
            Study(setup, Store(tmp_path / "runs"))
        return str(raised.value)

    assert refuse(cutk.UsageError("Only on Sundays.")) == "Only on Sundays."
    assert refuse(KeyError("weights")).startswith("The model 'odd' can't take images of 1×8×8: KeyError: 'weights'. ")
    # One that exits ends no command: its cells fail.
    monkeypatch.setattr(Odd, "build", lambda self, shape, num_classes: sys.exit(3))
    failures = Study(setup, Store(tmp_path / "runs")).run().failures
    assert failures
    assert all("SystemExit: 3" in failure.reason for failure in failures)
