from __future__ import annotations

import json
import multiprocessing
import os
import time

import pytest
import torch

import cutk
from cutk.run.store import Damaged, Store, canonical, key_of

KEY = key_of({"a": 1})
WEIGHTS = {"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)}


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "runs")
    store.open()
    return store


def test_keys_are_of_content_and_not_of_order():
    assert key_of({"a": 1, "b": [1.0, None]}) == key_of({"b": [1.0, None], "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})
    assert len(KEY) == 64
    with pytest.raises(ValueError, match="JSON"):
        canonical(float("nan"))


def test_what_is_written_is_read(store):
    assert store.read("train", KEY) is None
    assert store.peek("train", KEY) is None
    store.write("train", KEY, {"x": 1}, WEIGHTS)
    assert store.peek("train", KEY) is not None
    assert store.read("train", KEY)["x"] == 1
    read = store.weights("train", KEY)
    assert all(torch.equal(read[name], WEIGHTS[name]) for name in WEIGHTS)


def test_tensors_that_share_memory_are_written(store):
    shared = torch.rand(4)
    store.write("train", KEY, {}, {"a": shared, "b": shared, "c": shared[:2]})
    assert torch.equal(store.weights("train", KEY)["c"], shared[:2])


def test_a_run_that_is_there_stays(store):
    store.write("train", KEY, {"x": 1}, WEIGHTS)
    store.write("train", KEY, {"x": 2}, {"w": torch.zeros(1)})
    assert store.read("train", KEY)["x"] == 1
    assert torch.equal(store.weights("train", KEY)["w"], WEIGHTS["w"])


def test_an_update_changes_the_record_and_keeps_the_weights(store):
    store.write("train", KEY, {"x": 1, "y": 1}, WEIGHTS)
    store.update("train", KEY, {"x": 2})
    assert (store.read("train", KEY)["x"], store.read("train", KEY)["y"]) == (2, 1)
    assert torch.equal(store.weights("train", KEY)["w"], WEIGHTS["w"])


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": "another"}', '{"x": 1}', "\x00\xff"], ids=range(6))
def test_a_damaged_record_is_set_aside(store, content):
    store.write("train", KEY, {"x": 1}, WEIGHTS)
    (store.root / "train" / KEY / "record.json").write_text(content, encoding="latin-1")
    with pytest.raises(Damaged, match=r"record.json cannot be read"):
        store.read("train", KEY)
    assert store.peek("train", KEY) is None
    (aside,) = (store.root / "damaged").iterdir()
    assert (aside / "record.json").read_text(encoding="latin-1") == content


def test_a_run_without_a_record_is_set_aside(store):
    store.write("train", KEY, {}, WEIGHTS)
    (store.root / "train" / KEY / "record.json").unlink()
    with pytest.raises(Damaged, match="missing"):
        store.read("train", KEY)


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete"])
def test_damaged_weights_are_set_aside(store, damage):
    store.write("train", KEY, {}, WEIGHTS)
    path = store.root / "train" / KEY / "weights.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "delete":
        path.unlink()
    else:
        content[-1] ^= 1
        path.write_bytes(content[:-5] if damage == "truncate" else content)
    with pytest.raises(Damaged, match=r"weights.safetensors cannot be read"):
        store.weights("train", KEY)
    store.write("train", KEY, {}, WEIGHTS)
    assert torch.equal(store.weights("train", KEY)["w"], WEIGHTS["w"])


@pytest.mark.parametrize("change", ["a value", "a part", "nothing but nesting"])
def test_a_record_that_parses_and_was_changed_is_set_aside(store, change):
    store.write("train", KEY, {"attempts": [{"metrics": {"x": 0.5}}]}, WEIGHTS)
    path = store.root / "train" / KEY / "record.json"
    record = json.loads(path.read_text())
    if change == "a value":
        record["attempts"][0]["metrics"]["x"] = 123.0
    else:
        del record["attempts"]
    text = json.dumps(record) if "nesting" not in change else "[" * 100_000 + "]" * 100_000
    path.write_text(text)
    with pytest.raises(Damaged, match=r"record.json cannot be read \("):
        store.read("train", KEY)
    assert store.read("train", KEY) is None


def test_an_updated_record_is_as_sound_as_a_new_one(store):
    store.write("train", KEY, {"a": 1}, WEIGHTS)
    store.update("train", KEY, {"a": 2})
    assert store.read("train", KEY)["a"] == 2


def test_damage_can_happen_again(store):
    for _ in range(3):
        store.write("train", KEY, {}, WEIGHTS)
        (store.root / "train" / KEY / "record.json").write_text("{")
        with pytest.raises(Damaged):
            store.read("train", KEY)
    assert len(list((store.root / "damaged").iterdir())) == 3


def test_an_interrupted_write_leaves_nothing(store, monkeypatch):
    monkeypatch.setattr("cutk.run.store._write_text", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        store.write("train", KEY, {}, WEIGHTS)
    assert not list((store.root / "train").iterdir())


def test_leftovers_of_killed_processes_go_after_a_day(store):
    old, young = store.root / "train" / ".tmp-old", store.root / "train" / ".tmp-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
    os.utime(old, (time.time() - 90_000,) * 2)
    store.open()
    assert young.exists()
    assert not old.exists()


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(cutk.UsageError, match=r"cannot be written to \(.*\)\. Choose another with --runs"):
        Store(tmp_path / "file" / "runs").open()


def _write_many(root, number):
    store = Store(root)
    for i in range(30):
        store.write("train", key_of({"i": i}), {"i": i, "by": number}, {"w": torch.full((100,), float(i))})


def test_two_processes_on_one_folder_lose_nothing(store):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(store.root, n)) for n in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    for i in range(30):
        assert store.read("train", key_of({"i": i}))["i"] == i
        assert float(store.weights("train", key_of({"i": i}))["w"][0]) == i
    assert not list(store.root.glob("*/.tmp-*"))


def test_records_are_json_that_other_programs_read(store):
    store.write("train", KEY, {"x": [1, 2.5, None, "ü"]}, WEIGHTS)
    content = json.loads((store.root / "train" / KEY / "record.json").read_text())
    assert content["x"] == [1, 2.5, None, "ü"]
    assert content["key"] == KEY
