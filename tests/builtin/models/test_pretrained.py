"""Networks that start with weights from a file: what is taken, what stays new, and what is refused."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch
from torchvision.models import resnet18

import cutk
from cutk_builtin.models.timm import Timm
from cutk_builtin.models.torchvision import Torchvision

BENCH = ("bench", "-d", "fake", "-o", "fake.channels=3", "-o", "fake.size=32", "-o", "fake.samples=60", "-u", "none")
QUICK = ("--recipe", "steps=1", "batch_size=8", "--alpha", "1", "--seeds", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """ResNet-18 for 11 classes, as torchvision makes it, and a file with its weights."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = resnet18(num_classes=11)
    file = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    safetensors.torch.save_file(network.state_dict(), file)
    return network.state_dict(), file


def build(component, shape=(3, 32, 32), classes=5, **options):
    return component(component.Options(**options)).build(shape, classes)


@pytest.mark.parametrize(("shape", "prefix"), [((3, 32, 32), ""), ((1, 32, 32), "1.")])
def test_all_but_the_head_is_taken(pretrained, shape, prefix):
    state, file = pretrained
    found = build(Torchvision, shape, weights=file).state_dict()
    for name, value in state.items():
        if name.startswith("fc."):
            assert len(found[prefix + name]) == 5
        else:
            assert torch.equal(found[prefix + name], value), name


def test_a_head_for_as_many_classes_is_taken_from_any_file(pretrained, tmp_path):
    state, _ = pretrained
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "w.pt")
    found = build(Torchvision, classes=11, weights=tmp_path / "w.pt").state_dict()
    assert torch.equal(found["fc.weight"], state["fc.weight"])


def test_timm_takes_its_own(tmp_path):
    source = build(Timm, classes=7, architecture="test_resnet")
    torch.save(source.state_dict(), tmp_path / "w.pt")
    found = build(Timm, classes=3, architecture="test_resnet", weights=tmp_path / "w.pt")
    different = [n for n, v in found.state_dict().items() if not torch.equal(v, source.state_dict()[n])]
    assert different == ["fc.weight", "fc.bias"]
    with pytest.raises(cutk.UsageError, match=r"expected 'conv1\.0\.weight' as \[\d+, 1, 3, 3\], got \[\d+, 3, 3, 3\]"):
        build(Timm, (1, 32, 32), 3, architecture="test_resnet", weights=tmp_path / "w.pt")


def test_what_does_not_fit_is_named(pretrained, tmp_path):
    state, file = pretrained
    with pytest.raises(cutk.UsageError, match=r"165 missing \('layer1\.0\.bn3\.bias', .*Is --model the arch"):
        build(Torchvision, architecture="resnet50", weights=file)
    safetensors.torch.save_file({**state, "more": torch.zeros(1)}, tmp_path / "more.safetensors")
    with pytest.raises(cutk.UsageError, match=r"1 in excess \('more'\)"):
        build(Torchvision, weights=tmp_path / "more.safetensors")
    with pytest.raises(cutk.UsageError, match="Option 'weights': 'nowhere' is not there"):
        Torchvision.Options(weights="nowhere")
    with pytest.raises(cutk.UsageError, match=r"expected '.*' to have 0123, got [0-9a-f]{64}"):
        Torchvision.Options(weights=file, weights_sha256="0123")


def test_a_file_that_changes_under_way_is_refused(pretrained, tmp_path):
    state, _ = pretrained
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    options = Torchvision.Options(weights=tmp_path / "w.safetensors")
    state = {**state, "fc.bias": state["fc.bias"] + 1}
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(cutk.UsageError, match="The file has changed"):
        Torchvision(options).build((3, 32, 32), 11)


def test_the_weights_decide_a_run(run, pretrained, tmp_path):
    state, _ = pretrained
    keys = []
    for shift in (0, 0, 1):
        shifted = {**state, "bn1.bias": state["bn1.bias"] + shift}
        safetensors.torch.save_file(shifted, tmp_path / "w.safetensors")
        ran = run(*BENCH, *QUICK, "--model", "torchvision", "-o", "torchvision.weights=w.safetensors", "--json")
        assert ran.code == 0, ran.err
        keys.append(next(record["key"] for record in json.loads(ran.out)["records"]))
    assert keys[0] == keys[1] != keys[2]
