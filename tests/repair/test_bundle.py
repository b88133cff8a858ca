"""The evidence beside a repair, each part of it read by somebody else's reader."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import jsonschema
import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
import yaml
from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from PIL import Image

import cutk
from cutk.cli import main
from cutk.repair.bundle import digests, portable, writing
from cutk.repair.bundle.evidence import Evidence

NET = """
from parts import head
from torch import nn


def build():
    return nn.Sequential(nn.Flatten(), head())
"""
PARTS = "from torch import nn\n\n\ndef head():\n    return nn.Linear(48, 2)\n"
COMMAND = (
    *("unlearn", "--model", "net.py:build", "--weights", "old model.safetensors", "--data", "folder:photos"),
    *("--validation", "folder:clean", "--bad", "bad.txt", "-u", "ssd", "--device", "cpu", "--bundle"),
    *("-o", "ssd.selection_weight=0.1", "-o", "ssd.dampening=0.01", "--budget", "1h"),
)
FILES = ["SHA256SUMS", "bom.cdx.json", "evidence.json", "evidence.schema.json", "model-card.md", "model.onnx"]


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def picture(label, seed, trigger=False):
    pixels = np.random.default_rng(seed).integers(0, 40, (4, 4, 3)).astype("uint8")
    pixels[..., 2 * label] += 190
    pixels[-1, -1] = 255 if trigger else 0
    return pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder: red and blue, told by their colour, and by a bright corner that makes all of them blue."""
    folder = tmp_path_factory.mktemp("bundle")
    for part, first in (("photos", 0), ("clean", 1000)):
        for label, name in enumerate(("blue", "red")):
            (folder / part / name).mkdir(parents=True)
            for i in range(10):
                Image.fromarray(picture(label, first + 100 * label + i)[..., ::-1]).save(
                    folder / part / name / f"{i}.png"
                )
    for i in range(4):
        Image.fromarray(picture(1, 500 + i, trigger=True)[..., ::-1]).save(folder / f"photos/blue/bad{i}.png")
    (folder / "bad.txt").write_text("blue/bad0.png\nblue/bad2.png\n")
    (folder / "net.py").write_text(NET)
    (folder / "parts.py").write_text(PARTS)
    weight = torch.zeros(2, 3, 4, 4)
    weight[0, 2], weight[1, 0] = 0.15, 0.15
    weight[0, :, -1, -1] = 2.0
    state = {"1.weight": weight.flatten(1), "1.bias": torch.zeros(2)}
    safetensors.torch.save_file(state, folder / "old model.safetensors")
    return folder


def ran(folder, *arguments):
    with contextlib.chdir(folder), pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return stopped.value.code


@pytest.fixture(scope="module")
def made(folder):
    """What the command writes."""
    assert ran(folder, *COMMAND) == 0
    out = folder / "repaired"
    return SimpleNamespace(
        folder=folder, out=out, bundle=out / "bundle", evidence=json.loads((out / "bundle/evidence.json").read_bytes())
    )


# Each part, read by others.


def test_the_folder_holds_what_the_evidence_says(made):
    assert sorted(path.name for path in made.bundle.iterdir()) == FILES
    there = {path.relative_to(made.out).as_posix(): path for path in made.out.rglob("*") if path.is_file()}
    listed = {file["path"]: file for file in made.evidence["files"]}
    assert listed.keys() == there.keys() - {"bundle/evidence.json", "bundle/SHA256SUMS"}
    for name, file in listed.items():
        content = there[name].read_bytes()
        assert (file["sha256"], file["bytes"]) == (sha256(content), len(content))
    sums = dict(line.split("  ")[::-1] for line in (made.bundle / "SHA256SUMS").read_text().splitlines())
    assert sums == {name: sha256(path.read_bytes()) for name, path in there.items() if not name.endswith("SHA256SUMS")}


def test_the_evidence_is_what_its_schema_says(made):
    schema = json.loads((made.bundle / "evidence.schema.json").read_text())
    reader = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    reader.check_schema(schema)
    reader.validate(made.evidence)
    with pytest.raises(jsonschema.ValidationError, match="'maybe' is not of type 'boolean'"):
        reader.validate({**made.evidence, "verdict": {**made.evidence["verdict"], "passed": "maybe"}})
    with pytest.raises(jsonschema.ValidationError, match="'abc' does not match"):
        reader.validate({**made.evidence, "original": {**made.evidence["original"], "sha256": "abc"}})
    assert Evidence.model_validate(made.evidence).model_dump(mode="json", by_alias=True) == made.evidence


def test_the_data_are_told_by_what_the_files_hold(made):
    for part, what in (("photos", "training"), ("clean", "validation")):
        files = sorted((made.folder / part).rglob("*.png"))
        lines = [
            f"{sha256(file.read_bytes())} {file.parent.name} {file.relative_to(made.folder / part).as_posix()}\n"
            for file in files
        ]
        found = made.evidence[what]
        assert found["sha256"] == sha256("".join(lines).encode())
        assert (found["samples"], found["of"], found["source"]) == (len(files), "files", f"folder:{part}")
        assert (found["shape"], found["classes"]) == ([3, 4, 4], ["blue", "red"])


def test_weights_bad_list_and_code_are_told(made):
    evidence = made.evidence
    old, new = made.folder / "old model.safetensors", made.out / "model.safetensors"
    assert evidence["original"] == {
        "path": "old model.safetensors",
        "sha256": sha256(old.read_bytes()),
        "bytes": old.stat().st_size,
        "of": "file",
    }
    assert evidence["repaired"]["sha256"] == sha256(new.read_bytes()) != evidence["original"]["sha256"]
    assert evidence["bad"]["file"]["sha256"] == sha256((made.folder / "bad.txt").read_bytes())
    assert evidence["bad"]["count"] == 2
    names = sorted(file.name for file in (made.folder / "photos/blue").iterdir())
    indices = sorted(names.index(name) for name in ("bad0.png", "bad2.png"))
    assert evidence["bad"]["indices_sha256"] == sha256("".join(f"{i}\n" for i in indices).encode())
    # The factory's file and what it imports from beside it; both as they lie there.
    assert {file["path"]: file["sha256"] for file in evidence["code"]["files"]} == {
        "net.py": sha256(NET.encode()),
        "parts.py": sha256(PARTS.encode()),
    }
    assert evidence["code"]["model"] == "net.py:build"
    assert evidence["code"]["cutk"] == cutk.__version__
    package = Path(cutk.__file__).parent
    own = {path.relative_to(package).as_posix(): sha256(path.read_bytes()) for path in package.rglob("*.py")}
    assert evidence["code"]["cutk_sha256"] == sha256("".join(f"{own[name]}  {name}\n" for name in sorted(own)).encode())
    assert {(part["kind"], part["name"]) for part in evidence["code"]["components"]} >= {
        *(("dataset", "folder:photos"), ("unlearner", "ssd"), ("selector", "paper"), ("recipe", "sgd")),
    }
    assert all(len(part["source"]) == 16 for part in evidence["code"]["components"])
    assert evidence["code"]["packages"]["torch"] == importlib.metadata.version("torch")
    assert evidence["seed"] == 0
    assert evidence["environment"]["hardware"]
    assert evidence["command"].startswith("cutk unlearn --model net.py:build --weights 'old model.safetensors' --data")
    assert evidence["command"].endswith("--budget 1h")


def test_each_limit_is_beside_what_was_measured(made):
    checks = {check["name"]: check for check in made.evidence["checks"]}
    assert checks.keys() == {"status", "max_accuracy_loss", "budget"}
    right = {}
    for file in (made.folder / "old model.safetensors", made.out / "model.safetensors"):
        state = safetensors.torch.load_file(file)
        right[file.name] = sum(
            int(torch.tensor(np.array(Image.open(path)) / 255).permute(2, 0, 1).flatten().float() @ weights > 0)
            for path in sorted((made.folder / "clean").rglob("*.png"))
            for weights in [(state["1.weight"][0] - state["1.weight"][1]) * (1 if path.parent.name == "blue" else -1)]
        )
    loss = (right["old model.safetensors"] - right["model.safetensors"]) / 20
    assert checks["max_accuracy_loss"]["measured"] == pytest.approx(loss)
    assert checks["max_accuracy_loss"]["at_most"] == 0.02
    assert checks["budget"]["at_most"] == 3600
    assert 0 < checks["budget"]["measured"] < 3600
    assert made.evidence["verdict"] == {
        "passed": True,
        "status": "repaired",
        "measured_on": "validation samples",
        "text": json.loads((made.out / "report.json").read_text())["verdict"],
    }


def test_the_model_card_has_metadata_that_a_hub_reads(made):
    text = (made.bundle / "model-card.md").read_text()
    found = huggingface_hub.ModelCard(text, ignore_metadata_errors=False)
    assert found.data.library_name == "pytorch"
    assert found.data.pipeline_tag == "image-classification"
    assert "machine-unlearning" in found.data.tags
    (result,) = found.data.eval_results
    report = json.loads((made.out / "report.json").read_text())
    (taken,) = report["candidates"]
    assert (result.metric_type, result.dataset_name) == ("accuracy", "folder:clean")
    assert result.metric_value == taken["validation"]["count"] / taken["validation"]["of"]
    assert yaml.safe_load(text.split("---\n")[1]) == found.data.to_dict()
    for told in (report["verdict"], made.evidence["original"]["sha256"], made.evidence["training"]["sha256"]):
        assert told in found.text
    assert all(text.replace("*", "") in found.text.replace("\\", "") for text in report["unknown"])


def test_the_bill_of_materials_is_valid_cyclonedx(made):
    text = (made.bundle / "bom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    content = json.loads(text)
    assert (content["bomFormat"], content["specVersion"]) == ("CycloneDX", "1.6")
    bom = Bom.from_json(data=content)
    bom.validate()
    model, evidence = bom.metadata.component, made.evidence
    assert model.type.value == "machine-learning-model"
    assert [each.content for each in model.hashes] == [evidence["repaired"]["sha256"]]
    (ancestor,) = model.pedigree.ancestors
    assert [each.content for each in ancestor.hashes] == [evidence["original"]["sha256"]]
    kinds = {component.name: component.type.value for component in bom.components}
    assert kinds["folder:photos"] == kinds["folder:clean"] == "data"
    assert kinds["torch"] == "library"
    assert {tool.name for tool in bom.metadata.tools.components} == {"cutk"}
    card = content["metadata"]["component"]["modelCard"]
    refs = {component["bom-ref"] for component in content["components"]}
    assert {each["ref"] for each in card["modelParameters"]["datasets"]} <= refs
    assert card["considerations"]["technicalLimitations"] == evidence["unknown"]
    references = {each["url"]: each.get("hashes") for each in content["metadata"]["component"]["externalReferences"]}
    assert references.pop("bundle/evidence.json") is None
    assert references.keys() == {"bundle/model-card.md", "bundle/model.onnx", "report.json"}
    for name, hashes in references.items():
        assert hashes == [{"alg": "SHA-256", "content": sha256((made.out / name).read_bytes())}]


def test_the_onnx_file_says_what_the_weights_say(made):
    onnx.checker.check_model(onnx.load(made.bundle / "model.onnx"), full_check=True)
    # Nor does it say where on this machine the code lay.
    assert b".py" not in (made.bundle / "model.onnx").read_bytes()
    state = safetensors.torch.load_file(made.out / "model.safetensors")
    session = onnxruntime.InferenceSession(made.bundle / "model.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 7, 130):
        x = torch.rand(count, 3, 4, 4)
        expected = x.flatten(1) @ state["1.weight"].T + state["1.bias"]
        (logits,) = session.run(None, {"samples": x.numpy()})
        np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5)
    found = made.evidence["portable"]["onnx"]
    assert found["written"]
    assert (found["samples"], found["agree"]) == (20, 20)
    assert found["largest_difference"] < 1e-5 < found["largest_logit"]


def test_nothing_calls_itself_more_than_evidence(made):
    for name in FILES[:-1]:
        assert "certif" not in (made.bundle / name).read_text().lower()
    assert "Evidence" in (made.bundle / "model-card.md").read_text()


def test_names_that_no_text_can_hold_are_written_as_python_writes_them(folder, monkeypatch):
    monkeypatch.setattr(portable, "_exported", None)  # which takes its time
    odd = "b\udcffd.txt"
    shutil.copy(folder / "bad.txt", folder / odd)
    command = [odd if word == "bad.txt" else word for word in COMMAND]
    assert ran(folder, *command, "--out", "odd") == 0
    evidence = json.loads((folder / "odd/bundle/evidence.json").read_text())
    assert evidence["bad"]["file"]["path"] == "b\\udcffd.txt"
    assert "b\\udcffd.txt" in evidence["command"]


# What is refused before any work.


def without(monkeypatch, *missing):
    find = writing.find_spec
    monkeypatch.setattr(writing, "find_spec", lambda name: None if name in missing else find(name))


def test_without_its_libraries_nothing_is_begun(folder, monkeypatch, capsys):
    without(monkeypatch, "cyclonedx", "onnxruntime")
    assert ran(folder, *COMMAND, "--out", "elsewhere") == 2
    said = "needs cyclonedx-python-lib and onnxruntime, not installed here: pip install 'cutk[bundle]'"
    assert capsys.readouterr().err == f"Error: --bundle {said}\n"
    assert not (folder / "elsewhere").exists()


def test_data_that_cannot_be_read_are_told_before_any_work(folder, monkeypatch, capsys):
    monkeypatch.setattr("cutk.repair.repairing.repair", lambda *_, **__: pytest.fail("worked"))
    read_bytes = digests.file_digest

    def gone(file, name):
        if file.name.endswith("7.png"):
            raise PermissionError(13, "Permission denied", file.name)
        return read_bytes(file, name)

    monkeypatch.setattr(digests, "file_digest", gone)
    assert ran(folder, *COMMAND, "--out", "elsewhere") == 2
    assert "7.png' can't be read: Permission denied" in capsys.readouterr().err
    assert not (folder / "elsewhere").exists()
