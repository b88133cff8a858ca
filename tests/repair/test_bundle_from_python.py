"""The evidence beside a repair that was made in Python: forms of models and data, and what fails."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace

import huggingface_hub
import onnxruntime
import pytest
import safetensors.torch
import torch
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from torch import nn
from torch.utils.data import TensorDataset

import cutk
from cutk.repair.bundle import portable, writing
from cutk.repair.bundle.evidence import checks_of, verdict_on

FILES = ["SHA256SUMS", "bom.cdx.json", "evidence.json", "evidence.schema.json", "model-card.md", "model.onnx"]


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def case():
    """Fields of 2×3 numbers whose first tells the class and whose last was a trigger."""
    x = torch.randn(80, 1, 2, 3, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0, 0, 0] > 0).long()
    x[:4, 0, 1, 2], y[:4], x[:4, 0, 0, 0] = 8.0, 1, -1.0
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 2))
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].weight[1, 0], net[1].weight[0, 0] = 2.0, -2.0
        net[1].weight[1, 5] = 1.0
        net[1].bias.zero_()
    return SimpleNamespace(net=net.eval(), x=x, y=y, bad=[0, 1])


def repaired(case, net=None, method="ssd", **more):
    options = {"ssd": {"selection_weight": 1.0, "dampening": 0.1}} if method == "ssd" else {}
    data = TensorDataset(case.x, case.y)
    return cutk.unlearn(net or case.net, data, case.bad, method, options=options, max_accuracy_loss=0.5, **more)


def read(folder):
    return json.loads((folder / "bundle/evidence.json").read_bytes())


class Typed(nn.Module):
    """Answers as models of text do, in half precision."""

    def __init__(self, net):
        super().__init__()
        self.net = net.half()

    def forward(self, x):
        return {"logits": self.net(x)}


class Branching(nn.Module):
    """Goes another way for other values, which no graph can."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        out = self.net(x)
        return out if float(out.detach().sum()) > -1e9 else -out


@pytest.fixture(scope="module")
def from_python(case, tmp_path_factory):
    with torch.random.fork_rng():
        repair = repaired(case)
        folder = tmp_path_factory.mktemp("python") / "out"
        repair.save(folder, bundle=True)
    return SimpleNamespace(repair=repair, folder=folder, evidence=read(folder))


def test_a_repair_in_python_has_the_same_evidence(case, from_python, tmp_path):
    evidence, repair = from_python.evidence, from_python.repair
    assert repair.report.repaired, repair.report.verdict
    assert evidence["command"] == ""
    assert evidence["verdict"]["measured_on"] == "training samples that stand in"
    assert evidence["validation"] is None
    lines = [f"{sha256(case.x[i].numpy().tobytes())} {int(case.y[i])} {i}\n" for i in range(80)]
    assert evidence["training"]["sha256"] == sha256("".join(lines).encode())
    assert (evidence["training"]["of"], evidence["training"]["shape"]) == ("values", [1, 2, 3])
    safetensors.torch.save_file(case.net.state_dict(), tmp_path / "x", metadata={"format": "pt"})
    assert evidence["original"]["of"] == "tensors"
    assert evidence["original"]["sha256"] == sha256((tmp_path / "x").read_bytes())
    assert evidence["repaired"]["sha256"] == sha256((from_python.folder / "model.safetensors").read_bytes())
    found = safetensors.torch.load_file(from_python.folder / "model.safetensors")
    assert all(torch.equal(value, found[name]) for name, value in repair.model.state_dict().items())
    text = (from_python.folder / "bundle/bom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_other_forms_of_the_repaired_model_agree_with_it(from_python):
    model, x = from_python.repair.model, torch.randn(33, 1, 2, 3)
    with torch.no_grad():
        expected = model(x)
    program = torch.export.export(model, (x[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False)
    torch.testing.assert_close(program.module()(x), expected)
    session = onnxruntime.InferenceSession(from_python.folder / "bundle/model.onnx")
    (logits,) = session.run(["logits"], {"samples": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), expected, atol=1e-5, rtol=1e-5)


def test_a_model_that_answers_with_more_than_logits_in_half_precision_is_exported_too(case, tmp_path):
    untrained = Typed(nn.Sequential(nn.Flatten(), nn.Linear(6, 2)).requires_grad_(False))
    repair = repaired(case, untrained, "none", force=True)
    model = Typed(nn.Sequential(nn.Flatten(), nn.Linear(6, 2)))
    found = portable.onnx_of(model, repair._material.asked, tmp_path)
    assert found.written, found.reason
    (logits,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"samples": case.x.numpy()})
    with torch.no_grad():
        expected = model.float()(case.x)["logits"]
    torch.testing.assert_close(torch.from_numpy(logits), expected, atol=1e-5, rtol=1e-5)
    # A class of the user's own is told by its file.
    assert [file.path.endswith("test_bundle_from_python.py") for file in repair._material.code.files] == [True]


def test_a_model_that_cannot_be_exported_has_all_but_that(case, tmp_path):
    repaired(case, Branching(case.net)).save(tmp_path / "out", bundle=True)
    assert sorted(path.name for path in (tmp_path / "out/bundle").iterdir()) == FILES[:-1]
    found = read(tmp_path / "out")["portable"]["onnx"]
    assert not found["written"]
    assert found["reason"].startswith("it can't be exported: ")
    assert len(found["reason"]) < 500
    assert read(tmp_path / "out")["verdict"]["passed"]


def test_an_export_that_says_something_else_is_not_kept(case, tmp_path, monkeypatch):
    (tmp_path / "bundle").mkdir()
    program = SimpleNamespace(save=lambda file: file.write_bytes(b"another"))
    monkeypatch.setattr(portable, "_exported", lambda model, samples: program)
    monkeypatch.setattr(portable, "_ran", lambda file, samples: torch.ones(len(samples), 2))
    found = portable.onnx_of(case.net, case.x, tmp_path / "bundle")
    assert not found.written
    assert found.reason.startswith("what was exported differs: on ")
    assert not list((tmp_path / "bundle").iterdir())


def test_where_nothing_was_repaired_the_evidence_says_so(case, tmp_path):
    repair = repaired(case, method="none")
    repair.save(tmp_path / "out", bundle=True)
    evidence = read(tmp_path / "out")
    assert not evidence["verdict"]["passed"]
    assert evidence["repaired"] is None
    assert evidence["portable"]["onnx"]["reason"] == "nothing was repaired"
    assert {check["name"]: (check["measured"], check["passed"]) for check in evidence["checks"]} == {
        "status": ("not repaired", False),
        "max_accuracy_loss": (None, False),
    }
    assert not (tmp_path / "out/model.safetensors").exists()
    text = (tmp_path / "out/bundle/bom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    huggingface_hub.ModelCard((tmp_path / "out/bundle/model-card.md").read_text(), ignore_metadata_errors=False)


def passes(report, limits, seconds=0.0):
    changed = report.model_copy(update={"limits": report.limits.model_copy(update=limits), "seconds": seconds})
    checks = checks_of(changed)
    return verdict_on(changed, checks).passed, {check.name: check.passed for check in checks}


def test_the_verdict_depends_on_what_was_asked_of_the_model(from_python):
    report = from_python.repair.report
    loss = report.original.validation.value - report.taken.validation.value
    assert passes(report, {})[0]
    assert passes(report, {"max_accuracy_loss": loss})[0]
    assert passes(report, {"max_accuracy_loss": loss - 0.01}) == (False, {"status": True, "max_accuracy_loss": False})
    # A budget bounds the search, and says nothing of the model.
    assert passes(report, {"budget_seconds": 5.0}, 6.0) == (
        True,
        {"status": True, "max_accuracy_loss": True, "budget": False},
    )


# What fails, and is never half there.


def test_without_its_libraries_nothing_is_written(case, monkeypatch, tmp_path):
    find = writing.find_spec
    monkeypatch.setattr(writing, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    with pytest.raises(cutk.UsageError, match=r"^bundle=True needs onnxscript, not installed here: pip install"):
        repaired(case, method="none").save(tmp_path / "out", bundle=True)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(from_python, tmp_path, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(portable, "_exported", lambda model, samples: SimpleNamespace(save=full))
    with pytest.raises(cutk.UsageError, match=r"^folder: '.*' can't be written .there is no space left"):
        from_python.repair.save(tmp_path / "out", bundle=True)
    assert not list(tmp_path.iterdir())


def test_a_library_that_changed_its_ways_costs_no_repair(from_python, tmp_path, monkeypatch):
    def changed(*_):
        raise TypeError("an unexpected keyword")

    monkeypatch.setattr(writing, "bom", changed)
    monkeypatch.setattr(portable, "_exported", changed)
    from_python.repair.save(tmp_path / "out", bundle=True)
    evidence = read(tmp_path / "out")
    assert evidence["lacking"].keys() == {"bundle/bom.cdx.json"}
    assert evidence["lacking"]["bundle/bom.cdx.json"].startswith("TypeError: an unexpected keyword")
    assert "an unexpected keyword" in evidence["portable"]["onnx"]["reason"]
    assert (tmp_path / "out/model.safetensors").exists()


def test_a_repair_is_saved_without_evidence_too(from_python):
    folder = from_python.folder.with_name("plain")
    from_python.repair.save(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        *("model.safetensors", "report.html", "report.json", "suspects.csv"),
    ]
    with pytest.raises(cutk.UsageError, match=r"there already. Choose another, or replace it with force=True"):
        from_python.repair.save(folder)
    from_python.repair.save(folder, force=True)
    assert len(list(folder.iterdir())) == 4
