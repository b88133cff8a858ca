"""Everything that reads what a user hands in, each as a function of bytes: for properties and for a fuzzer.

Each works, or refuses in one line; whatever else it raises is a fault.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import torch

import cutk
from cutk.cli.bench import _alphas
from cutk.cli.common import settings
from cutk.plugins.registry import load_registry
from cutk.repair.weights import read_weights
from cutk.run.files import Damaged, Unreadable, load_weights
from cutk.run.plan import Plan, layer, over_default
from cutk.run.setup import resolve
from cutk.run.store import Store
from cutk_builtin.datasets.arrays import Arrays
from cutk_builtin.datasets.csv_table import rows_of
from cutk_builtin.identifications.file import entries_of, positions
from cutk_builtin.manipulations.label_file import line_up, read

REGISTRY = load_registry({"CUTK_PLUGINS": ""})
SAMPLES = cutk.Samples(torch.zeros(12, 1, 4, 4, dtype=torch.uint8), torch.arange(12) % 3, ("a", "b", "c"))
LEAST = {"unlearners": ["cf"]}


def text_of(content):
    return content.decode("utf-8", "surrogateescape")


def plan_file(content, folder):
    path = folder / "plan.toml"
    path.write_bytes(content)
    resolve(Plan.parse(layer(LEAST, over_default(str(path), REGISTRY))), REGISTRY)


def plan_name(content, folder):
    over_default(text_of(content), REGISTRY)


def plan_entries(content, folder):
    """What ``cutk.bench`` and TOML have in common: entries of whatever type, here as JSON."""
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError):
        return
    if isinstance(entries, dict):
        resolve(Plan.parse(layer(LEAST, over_default(entries, REGISTRY))), REGISTRY)


def options(content, folder):
    over = {"options": settings(text_of(content).split("\n"))}
    resolve(Plan.parse(layer(over_default(LEAST, REGISTRY), over)), REGISTRY)


def alphas(content, folder):
    Plan.parse(layer(over_default(LEAST, REGISTRY), {"alphas": _alphas(None, None, (text_of(content),))}))


def _list(suffix):
    def index_list(content, folder):
        path = folder / f"list{suffix}"
        path.write_bytes(content)
        positions(entries_of(path), SAMPLES, None)

    return index_list


def _labels(suffix):
    def labels(content, folder):
        path = folder / f"labels{suffix}"
        path.write_bytes(content)
        given = read(path)
        try:
            line_up(given, SAMPLES)
        except ValueError as error:  # which the manipulation says with the file's name
            raise cutk.UsageError(str(error)) from None

    return labels


def _arrays(suffix):
    def arrays(content, folder):
        path = folder / f"arrays{suffix}"
        path.write_bytes(content)
        Arrays(Arrays.Options(file=path)).load()

    return arrays


def record(content, folder):
    """A record, and as many weights, in a runs folder."""
    key = "0" * 64
    run = folder / "runs" / "train" / key
    run.mkdir(parents=True, exist_ok=True)
    (run / "weights.safetensors").write_bytes(content[:40])
    (run / "record.json").write_bytes(content)
    failed = folder / "runs" / "failed"
    failed.mkdir(exist_ok=True)
    (failed / f"{key}.json").write_bytes(content)
    store = Store(folder / "runs")
    store.failures()
    for ask in (lambda: store.runs(), lambda: store.peek("train", key), lambda: store.weights("train", key)):
        try:
            ask()
        except (cutk.UsageError, Damaged, Unreadable) as error:
            one_line(error)


def forged_record(content, folder):
    """The same by somebody who knows how checksums are made."""
    _head, _, body = content.partition(b"\n")
    record(b'{"sha256": "%s",\n%s' % (hashlib.sha256(body).hexdigest().encode(), body), folder)


def weights(content, folder):
    """Weights of a sound record."""
    path = folder / "weights.safetensors"
    path.write_bytes(content)

    load_weights(path, hashlib.sha256(content).hexdigest())


def _checkpoint(suffix):
    def checkpoint(content, folder):
        path = folder / f"checkpoint{suffix}"
        path.write_bytes(content)
        read_weights(path)

    return checkpoint


def table(content, folder):
    path = folder / "table.csv"
    path.write_bytes(content)
    rows_of(path, None, None)


PARSERS = {
    **{f"checkpoint{suffix}": _checkpoint(suffix) for suffix in (".pt", ".safetensors")},
    "table": table,
    "plan": plan_file,
    "preset": plan_name,
    "entries": plan_entries,
    "options": options,
    "alphas": alphas,
    **{f"list{suffix}": _list(suffix) for suffix in (".txt", ".csv", ".json")},
    **{f"labels{suffix}": _labels(suffix) for suffix in (".txt", ".csv", ".json", ".npy", ".npz", ".pt")},
    **{f"arrays{suffix}": _arrays(suffix) for suffix in (".npz", ".safetensors")},
    "record": record,
    "forged": forged_record,
    "weights": weights,
}


def one_line(error, content=b""):
    """Require a text of one line; the command line makes one of what was handed in with line breaks."""
    text = str(error)
    echoed = b"\n" in content or b"\\" in content or "\n" in text_of(content)
    if ("\n" in text and not echoed) or not text.strip():
        raise RuntimeError(f"not one line: {text!r}") from error


def hand_in(name, content, folder):
    """Hand something in; return whether it was taken, and raise what no parser may raise."""
    try:
        PARSERS[name](content, Path(folder))
    except (cutk.UsageError, Damaged, Unreadable) as error:
        one_line(error, content)
        return False
    return True


def _saved(save, *args, **kwargs):
    file = io.BytesIO()
    save(file, *args, **kwargs)
    return file.getvalue()


# Text whose last character is beyond all there are.
NO_CHARACTER = _saved(np.save, np.array(["a", "b", "c"] * 4))[:-2] + b"`\x00"


def _stored():
    """Return an archive as NumPy writes it, uncompressed, and compressed."""
    arrays = {"images": np.zeros((12, 4, 4), np.uint8), "labels": np.arange(12) % 3}
    return [_saved(np.savez, **arrays), _saved(np.savez_compressed, **arrays)]


def _unsuffixed():
    """Return an archive with a file of labels that isn't called .npy, of which NumPy gives the bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("labels", b"0\n1\n2\n" * 4)
    return file.getvalue()


def _torch_saved(content, legacy=False):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def _checkpoint_bytes(legacy=False):
    return _torch_saved({"state_dict": {"weight": torch.zeros(2, 2)}}, legacy)


def _misnamed():
    """Return a checkpoint in whose archive a member's name is said to be UTF-8, and isn't."""
    content = bytearray(_checkpoint_bytes())
    name = content.rfind(b"data.pkl")  # in the list of all members, at the end
    entry = content.rfind(b"PK\x01\x02", 0, name)
    content[entry + 9] |= 0x08
    content[name] = 0x99
    return bytes(content)


def _spanning():
    """Return a checkpoint whose archive is said to go on in others."""
    content = bytearray(_checkpoint_bytes())
    content[content.rindex(b"PK\x06\x07") + 16] = 7
    return bytes(content)


def seeds():
    """Return for each parser what it takes, to begin with."""
    from safetensors.torch import save

    tensors = {"images": torch.zeros(12, 4, 4, dtype=torch.uint8), "labels": torch.arange(12) % 3}
    whole = json.dumps(
        {
            "schema": 2, "key": "0" * 64, "provider": "cutk==0.2.0", "attempts": [{"score": 0.5}], "selected": 0,
            "labels": {"role": "original", "dataset": "d", "manipulation": "m", "model": "n", "recipe": "r", "seed": 0,
                       "manipulated": 10},
            "decided_by": {"role": "original", "data": "a", "corruption": "b", "manipulation": [], "seed": 0,
                           "model": {"name": "n", "provider": "p", "options": [{}]}, "precision": "fp32",
                           "recipe": {"name": "n", "provider": "p", "options": [{}]}, "device": "cpu", "threads": 1,
                           "validation_fraction": 0.1},
            "environment": {"torch": "2", "python": "3", "device": "cpu", "hardware": "x", "threads": 1,
                            "precision": "fp32"},
        },
        indent=1,
    ).encode()  # fmt: skip
    presets = [preset.path.read_bytes() for preset in REGISTRY.presets.values()]
    numbers = [b"0\n3\n7\n", b"# bad\n1\n", b"id,why\n1,x\n", b'[1, 2, "3"]']
    labels = [
        b"0\n1\n2\n" * 4,
        b"id,label\n" + b"".join(b"%d,a\n" % i for i in range(12)),
        json.dumps([0, "a", "2"] * 4).encode(),
        b'{"0": "a"}',
    ]
    return {
        "plan": [*presets, b'base = "default"\nseeds = [1, 2]\nalphas = [0.5]\n[options.cf]\nsteps = [1, 2]\n'],
        "preset": [*(name.encode() for name in REGISTRY.presets), b"a.toml", b"/", b"~"],
        "entries": [b'{"seeds": 3, "options": {"cf": {"steps": [1, 2]}}, "recipe": {"name": "sgd", "lr": "0.1"}}'],
        "options": [b"cf.steps=1,2", b"badnet.size=2\nsgd.lr=0.1", b"cifar10.root=~/x"],
        "alphas": [b"0.1,0.5,1", b"1e-3"],
        **{f"list{suffix}": numbers for suffix in (".txt", ".csv", ".json")},
        **{f"labels{suffix}": labels for suffix in (".txt", ".csv", ".json")},
        "labels.npy": [
            _saved(np.save, np.arange(12) % 3),
            _saved(np.save, np.array(["a", "b", "c"] * 4)),
            NO_CHARACTER,
        ],
        "labels.pt": [
            *map(_torch_saved, (torch.arange(12) % 3, {"id": np.arange(12), "label": np.arange(12) % 3})),
            *(_misnamed(), _spanning()),
        ],
        "labels.npz": [_saved(np.savez, labels=np.arange(12) % 3), *_stored(), _unsuffixed()],
        "arrays.npz": [*_stored(), _unsuffixed()],
        "arrays.safetensors": [save(tensors), save(tensors, {"classes": '["a", "b", "c"]'})],
        "record": [whole],
        "forged": [b"{" + b"\n" + whole.removeprefix(b"{\n")],
        "weights": [save(tensors)],
        "checkpoint.pt": [_checkpoint_bytes(), _checkpoint_bytes(legacy=True), _misnamed(), _spanning()],
        "checkpoint.safetensors": [save(tensors), save(tensors, {"cutk": '{"classes": ["a"]}'})],
        "table": [b"path,label\na.png,cat\nb.png,dog\n"],
    }
