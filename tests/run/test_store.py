from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from unittest.mock import Mock

import pytest
import torch
from safetensors import SafetensorError

import cutk
import cutk.run.store as store_module
from cutk.run.files import Damaged, Unreadable, own_name
from cutk.run.keys import canonical, key_but_for_code, key_of, kind_of
from cutk.run.records import Attempt, Failure, Run, Unlearned
from cutk.run.store import Store

ONE = {"name": "one", "provider": "cutk==0.2.0", "options": [{}]}
TRAINED = {
    "role": "original",
    "data": "a" * 64,
    "corruption": "b" * 64,
    "manipulation": [ONE],
    "model": ONE,
    "recipe": ONE,
    "validation_fraction": 0.1,
    "seed": 0,
    "precision": "fp32",
    "device": "cpu",
    "threads": 1,
}
UNLEARNED = {
    "original": TRAINED,
    "unlearner": ONE,
    "identification": ONE,
    "identified": "c" * 64,
    "selector": ONE,
    "alpha": 0.5,
}
LABELS = {"dataset": "d", "manipulation": "m", "model": "n", "recipe": "r", "manipulated": 10}
ENVIRONMENT = {"torch": "2", "python": "3", "device": "cpu", "hardware": "x", "threads": 1, "precision": "fp32"}
FAILURE = Failure(what="cell", role="gold", dataset="d", manipulation="m", model="n", seed=0, reason="It broke.")
WEIGHTS = {"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)}


def run_of(seed=0, *, unlearned=False, score=0.5, error=""):
    """Return a run that nobody computed."""
    trained = {**TRAINED, "seed": seed}
    decided_by = {**UNLEARNED, "original": trained} if unlearned else trained
    about = (
        {"role": "unlearned", "unlearner": "u", "alpha": 0.5, "identified": 5} if unlearned else {"role": "original"}
    )
    return Run(
        key=key_of(decided_by),
        labels={**LABELS, "seed": seed, **about},
        decided_by=decided_by,
        provider="cutk==0.2.0",
        attempts=[{"score": score, "error": error}],
        selected=0,
        environment=ENVIRONMENT,
    )


RUN = run_of()
KEY = RUN.key


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "runs")
    store.open()
    return store


@pytest.fixture
def record(store):
    """The path of the one record that is there."""
    store.write(RUN, WEIGHTS)
    return store.root / "train" / KEY / "record.json"


def damaged(store):
    folder = store.root / "damaged"
    return sorted(folder.iterdir()) if folder.exists() else []


def forge(path, change):
    """Change a record as whoever knows its form can: the checksum fits."""
    content = json.loads(path.read_text())
    del content["sha256"]
    body = json.dumps(change(content)).removeprefix("{")
    path.write_text(f'{{"sha256": "{hashlib.sha256(body.encode()).hexdigest()}",\n{body}')


# What it is for.


def test_keys_are_of_content_and_not_of_order():
    assert key_of({"a": 1, "b": [1.0, None]}) == key_of({"b": [1.0, None], "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})
    assert len(KEY) == 64
    assert key_of(RUN.decided_by) == key_of(
        TRAINED
        | {"manipulation": [ONE | {"source": ""}]}
        | {name: ONE | {"source": ""} for name in ("model", "recipe")}
    )
    with pytest.raises(ValueError, match="JSON"):
        canonical(float("nan"))


@pytest.mark.parametrize("unlearned", [False, True])
def test_what_is_written_is_read(store, unlearned):
    run = run_of(unlearned=unlearned)
    kind = kind_of(run)
    assert kind == ("unlearn" if unlearned else "train")
    assert store.read(kind, run.key) is store.peek(kind, run.key) is None
    written = store.write(run, WEIGHTS)
    assert store.read(kind, run.key) == store.peek(kind, run.key) == written
    assert written == run.model_copy(
        update={"weights_sha256": written.weights_sha256, "weights_bytes": written.weights_bytes}
    )
    read = store.weights(kind, run.key)
    assert all(torch.equal(read[name], WEIGHTS[name]) for name in WEIGHTS)


def test_tensors_that_share_memory_are_written(store):
    shared = torch.rand(4)
    store.write(RUN, {"a": shared, "b": shared, "c": shared[:2]})
    assert torch.equal(store.weights("train", KEY)["c"], shared[:2])


def test_a_run_that_is_there_stays_unless_it_is_to_be_replaced(store):
    store.write(RUN, WEIGHTS)
    other = run_of(score=0.75)
    store.write(other, {"w": torch.zeros(1)})
    assert store.read("train", KEY).attempts[0].score == 0.5
    assert torch.equal(store.weights("train", KEY)["w"], WEIGHTS["w"])
    store.write(other, {"w": torch.zeros(1)}, replace=True)
    assert store.read("train", KEY).attempts[0].score == 0.75
    assert torch.equal(store.weights("train", KEY)["w"], torch.zeros(1))
    assert sorted(path.name for path in (store.root / "train" / KEY).iterdir()) == [
        "record.json",
        "weights.safetensors",
    ]


def measuring(**metrics):
    """Return a run that has these metrics of its one attempt."""
    one = {"provider": "p", "summary": "", "higher_is_better": True}
    measured = {name: {"name": name, **one} for name in metrics}
    return Run.model_validate(
        RUN.model_dump(by_alias=True) | {"attempts": [{"metrics": metrics}], "measured": measured}
    )


def test_what_another_process_measured_of_the_same_weights_stays(store):
    store.write(measuring(a=1.0), WEIGHTS)
    for replace in (False, True):
        written = store.write(measuring(b=2.0), WEIGHTS, replace=replace)
        assert written.chosen.metrics == {"a": 1.0, "b": 2.0}
        assert set(written.measured) == {"a", "b"}
        assert store.read("train", KEY) == written
    store.update(measuring(c=3.0))
    assert store.read("train", KEY).chosen.metrics == {"a": 1.0, "b": 2.0, "c": 3.0}
    store.update(measuring(a=4.0))
    assert store.read("train", KEY).chosen.metrics == {"a": 4.0, "b": 2.0, "c": 3.0}


@pytest.mark.parametrize("ask", ["read", "write", "peek"])
def test_a_run_that_another_process_just_replaces_is_looked_at_again(store, record, monkeypatch, ask):
    looks, parse = [], store_module.parse_record

    def late(path, kind):
        looks.append(path)
        if len(looks) == 1:  # it was away while it was opened, and is there by now
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return parse(path, kind)

    monkeypatch.setattr(store_module, "parse_record", late)
    if ask == "peek":  # which is asked for every cell, and may be wrong at no cost
        assert store.peek("train", KEY) is None
        return
    assert (store.read("train", KEY) if ask == "read" else store.write(RUN, WEIGHTS)).key == KEY
    assert len(looks) > 1
    assert list(store.root.glob("damaged/*")) == []


def test_of_two_computations_with_other_weights_one_is_there_and_told(store):
    first = store.write(measuring(a=1.0), WEIGHTS)
    other = {"w": torch.zeros(1)}
    assert store.write(measuring(a=2.0), other) == first  # which holds as much
    more = store.write(measuring(a=2.0, b=3.0), other)
    assert more.chosen.metrics == {"a": 2.0, "b": 3.0}  # and none of the other weights'
    assert store.read("train", KEY) == more
    assert torch.equal(store.weights("train", KEY)["w"], other["w"])


def test_a_metric_that_failed_for_one_process_has_what_another_measured(store):
    failed = measuring(a=1.0).model_copy(update={"attempts": [Attempt(failed_metrics={"a": "It broke."})]})
    store.write(Run.model_validate(failed.model_dump(by_alias=True)), WEIGHTS)
    assert store.write(measuring(a=1.0), WEIGHTS).chosen.failed_metrics == {}
    assert store.read("train", KEY).chosen.metrics == {"a": 1.0}
    store.write(Run.model_validate(failed.model_dump(by_alias=True)), WEIGHTS, replace=True)
    assert store.read("train", KEY).chosen.metrics == {"a": 1.0}


def test_nothing_is_added_to_other_weights(store):
    first = store.write(measuring(a=1.0), WEIGHTS)
    second = store.write(measuring(a=2.0, b=3.0), {"w": torch.zeros(1)})
    mine = first.model_copy(update={"attempts": measuring(a=1.0, c=4.0).attempts})
    assert not store.update(mine)
    assert store.read("train", KEY) == second


def test_a_failure_is_forgotten_where_the_cell_succeeds_by_other_code(store):
    about = FAILURE.model_copy(update={"cell": "this"})
    store.note_failure("0" * 64, about)
    store.note_failure("1" * 64, FAILURE.model_copy(update={"cell": "another"}))
    store.note_failure("2" * 64, FAILURE)  # of an earlier version, which says nothing of it
    store.forget_failure("3" * 64, "this")
    assert {failure.cell for failure in store.failures()} == {"another", ""}
    store.forget_failure("3" * 64)
    assert len(store.failures()) == 2


def test_a_cell_is_the_same_whatever_the_code_and_version_of_its_components():
    def named(**change):
        one = {**ONE, **change}
        unlearned = {**UNLEARNED, "unlearner": one, "original": {**TRAINED, "recipe": one, "manipulation": [one]}}
        return key_but_for_code(Unlearned.model_validate(unlearned))

    assert named(source="a", provider="mine==1") == named(source="b", provider="mine==2")
    assert len({named(), named(name="two"), named(options=[{"a": 1}]), named(options=[{"source": 1}])}) == 4


def test_an_update_changes_the_record_and_keeps_the_weights(store):
    store.write(RUN, WEIGHTS)
    store.update(run_of(score=0.75))
    assert store.read("train", KEY).attempts[0].score == 0.75
    assert torch.equal(store.weights("train", KEY)["w"], WEIGHTS["w"])
    assert [path.name for path in (store.root / "train").iterdir()] == [KEY]


def test_an_update_of_a_linked_run_is_written_where_the_run_lies(store, tmp_path):
    other = Store(tmp_path / "other")
    other.write(RUN, WEIGHTS)
    (store.root / "train").mkdir()
    (store.root / "train" / KEY).symlink_to(other.root / "train" / KEY)
    store.update(run_of(score=0.75))
    assert other.read("train", KEY).attempts[0].score == 0.75


def test_an_update_of_what_is_not_there_does_nothing(store):
    store.update(RUN)
    assert store.read("train", KEY) is None


def test_records_are_json_that_other_programs_read(store):
    store.write(run_of(error="ü"), WEIGHTS)
    content = json.loads((store.root / "train" / KEY / "record.json").read_text(encoding="utf-8"))
    assert content["attempts"][0]["error"] == "ü"
    assert content["key"] == KEY
    assert content["schema"] == 2


def test_new_runs_can_be_read_by_whoever_may_read_the_folder(record):
    mask = os.umask(0)
    os.umask(mask)
    assert record.parent.stat().st_mode & 0o777 == 0o777 & ~mask
    assert record.stat().st_mode & 0o777 == 0o666 & ~mask


def test_the_folder_stays_the_same_if_the_working_folder_changes(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    store = Store("runs")
    store.open()
    monkeypatch.chdir(tmp_path / "elsewhere")
    store.write(RUN, WEIGHTS)
    assert (tmp_path / "runs" / "train" / KEY).is_dir()


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(cutk.UsageError, match=r"cannot be written to \(.*\)\. Choose another with --runs"):
        Store(tmp_path / "file" / "runs").open()


# Many runs.


def test_runs_come_in_the_order_of_their_labels(store):
    runs = [run_of(seed, unlearned=unlearned) for unlearned in (False, True) for seed in range(3)]
    for run in reversed(runs):
        store.write(run, WEIGHTS)
    read = store.runs()
    assert [run.key for run in read] == [run.key for run in runs]


def test_what_cannot_be_read_is_told_and_left_out(store):
    for seed in range(3):
        store.write(run_of(seed), WEIGHTS)
    (store.root / "train" / run_of(2).key / "record.json").write_text("{")
    told = []
    assert len(store.runs(told.append)) == 2
    (line,) = told
    assert line.endswith(
        "is left out: record.json cannot be read (it is not JSON: EOF while parsing an object at line 1 column 1)"
    )
    assert not damaged(store)


def test_a_folder_without_runs_is_one_line(tmp_path):
    with pytest.raises(cutk.UsageError, match=r"is not there\. Expected the folder that cutk bench"):
        Store(tmp_path / "none").runs()
    with pytest.raises(cutk.UsageError, match="No runs in"):
        Store(tmp_path).runs()
    (tmp_path / "train" / KEY).mkdir(parents=True)
    with pytest.raises(cutk.UsageError, match="None of the 1 runs in"):
        Store(tmp_path).runs()


def test_failures_are_kept_until_they_are_forgotten(store):
    assert store.failures() == []
    store.note_failure("b" * 64, FAILURE.model_copy(update={"seed": 1}))
    store.note_failure("a" * 64, FAILURE)
    store.note_failure("a" * 64, FAILURE)
    assert [failure.seed for failure in store.failures()] == [0, 1]
    (store.root / "failed" / ("c" * 64 + ".json")).write_text("{}")
    os.mkfifo(store.root / "failed" / ("d" * 64 + ".json"))
    assert len(store.failures()) == 2
    store.forget_failure("a" * 64)
    store.forget_failure("a" * 64)
    assert [failure.seed for failure in store.failures()] == [1]


# Damage.


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": "another"}', '{"x": 1}', "\x00\xff", "null"], ids=range(7))
def test_a_damaged_record_is_set_aside(store, record, content):
    record.write_text(content, encoding="latin-1")
    assert store.peek("train", KEY) is None
    with pytest.raises(Damaged, match=r"record.json cannot be read"):
        store.read("train", KEY)
    assert store.read("train", KEY) is None
    (aside,) = damaged(store)
    assert (aside / "record.json").read_text(encoding="latin-1") == content


def test_a_run_without_a_record_is_set_aside(store, record):
    record.unlink()
    with pytest.raises(Damaged, match="missing"):
        store.read("train", KEY)


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "swap"])
def test_damaged_weights_are_set_aside(store, record, damage):
    path = record.with_name("weights.safetensors")
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "swap":
        path.mkdir()
    elif damage != "delete":
        content[-1] ^= 1
        path.write_bytes(content[:-5] if damage == "truncate" else content)
    with pytest.raises(Damaged, match=r"weights.safetensors cannot be read"):
        store.weights("train", KEY)
    store.write(RUN, WEIGHTS)
    assert torch.equal(store.weights("train", KEY)["w"], WEIGHTS["w"])


def test_every_flipped_bit_is_found(store, record):
    content = record.read_bytes()
    for position in range(0, len(content), 7):
        record.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        try:
            read = store.peek("train", KEY)
        except Unreadable:  # the flipped bit is in the schema's number
            assert b'"schema": 3' in record.read_bytes()
        else:
            assert read is None


FORGERIES = {
    "another's": lambda content: {**content, "key": "0" * 64},
    "no environment": lambda content: {**content, "environment": None},
    "no attempt": lambda content: {**content, "attempts": []},
    "none selected": lambda content: {**content, "selected": 7},
    "a score that is no number": lambda content: {**content, "attempts": [{"score": "high"}]},
    "no alpha": lambda content: {**content, "decided_by": {**UNLEARNED, "alpha": None}},
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_record_is_set_aside_in_one_line(store, record, name):
    forge(record, FORGERIES[name])
    with pytest.raises(Damaged, match=r"record.json cannot be read \(") as caught:
        store.read("train", KEY)
    assert "\n" not in str(caught.value)
    assert store.read("train", KEY) is None


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000 + "]" * 100_000,
        '{"schema": ' + "9" * 5000 + "}",
        '{"a": "\\ud800"}',
        '{"schema": NaN}',
        '{"a": 1e999}',
    ],
    ids=["nested", "long", "surrogate", "nan", "huge"],
)
def test_what_no_parser_likes_is_damage_and_no_traceback(store, record, text):
    record.write_text(text)
    told = []
    with pytest.raises(cutk.UsageError, match="None of the 1 runs"):
        store.runs(told.append)
    assert len(told) == 1
    with pytest.raises(Damaged, match=r"record.json cannot be read \("):
        store.read("train", KEY)


def test_damage_can_happen_again(store):
    for _ in range(3):
        store.write(RUN, WEIGHTS)
        (store.root / "train" / KEY / "record.json").write_text("{")
        with pytest.raises(Damaged):
            store.read("train", KEY)
    assert len(damaged(store)) == 3


def test_what_is_damaged_and_cannot_be_moved_says_so(store, record):
    record.write_text("{")
    (store.root / "damaged").write_text("")  # where a folder is due
    with pytest.raises(Unreadable, match="cannot be set aside"):
        store.read("train", KEY)


def test_a_run_that_is_replaced_while_it_is_read_is_no_damage(store, record, monkeypatch):
    real, calls = Store._sound, []

    def replaced_after_a_look(self, kind, key):
        calls.append(key)
        if len(calls) == 1:
            record.write_bytes(record.read_bytes()[:50])
            try:
                return real(self, kind, key)
            finally:
                store.write(RUN, WEIGHTS, replace=True)
        return real(self, kind, key)

    monkeypatch.setattr(Store, "_sound", replaced_after_a_look)
    assert store.read("train", KEY) is not None
    assert not damaged(store)


# What is there and can't be read.

NO_PROOF = [errno.EACCES, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ELOOP, errno.EPERM, errno.ENOMEM]


@pytest.mark.parametrize("number", NO_PROOF, ids=errno.errorcode.get)
@pytest.mark.parametrize("name", ["record.json", "weights.safetensors"])
def test_what_cannot_be_read_now_is_neither_damaged_nor_moved(store, record, monkeypatch, number, name):
    real = os.open

    def failing(path, *args, **kwargs):
        if os.path.basename(os.fspath(path)) == name:
            raise OSError(number, os.strerror(number), path)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", failing)
    with pytest.raises(Unreadable, match=r"is there and cannot be read \(.*\)\. It stays where it is: .*--runs DIR"):
        store.weights("train", KEY)
    if name == "record.json":
        with pytest.raises(Unreadable):
            store.peek("train", KEY)
        with pytest.raises(Unreadable):
            store.update(RUN)
        told = []
        with pytest.raises(cutk.UsageError, match="None of the 1 runs"):
            store.runs(told.append)
        assert os.strerror(number) in told[0]
    monkeypatch.undo()
    assert record.is_file()
    assert not damaged(store)
    assert store.weights("train", KEY)


@pytest.mark.parametrize("name", ["record.json", "weights.safetensors"])
@pytest.mark.parametrize("link", ["a loop", "to nothing"])
def test_a_link_that_leads_nowhere_proves_nothing(store, record, name, link):
    path = record.with_name(name)
    path.unlink()
    path.symlink_to(path if link == "a loop" else path.with_name("not-mounted"))
    with pytest.raises(Unreadable, match="It stays where it is"):
        store.read("train", KEY)
    assert path.is_symlink()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_run_of_another_owner_stays(store, record):
    record.parent.chmod(0)
    try:
        with pytest.raises(Unreadable, match="Permission denied"):
            store.read("train", KEY)
    finally:
        record.parent.chmod(0o755)


@pytest.mark.parametrize("name", ["record.json", "weights.safetensors"])
@pytest.mark.parametrize("thing", ["fifo", "device", "socket", "folder"])
def test_nothing_but_a_file_is_opened(store, record, name, thing, monkeypatch):
    path = record.with_name(name)
    path.unlink()
    if thing == "fifo":
        os.mkfifo(path)
    elif thing == "device":
        path.symlink_to("/dev/zero")
    elif thing == "folder":
        path.mkdir()
    else:
        monkeypatch.chdir(path.parent)  # the path of a socket has to be short
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(name)
    assert store.peek("train", KEY) is None
    if name == "record.json":
        with pytest.raises(cutk.UsageError, match="None of the 1 runs"):
            store.runs()
    with pytest.raises(Damaged, match="it is not a file"):
        store.weights("train", KEY)


def test_a_record_without_an_end_is_not_read_to_it(store, record):
    with record.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(Unreadable, match="larger than 256 MiB"):
        store.read("train", KEY)


def test_records_of_other_versions_say_so_and_stay(store, record):
    forge(record, lambda content: {**content, "schema": 3, "attempts": "in a way of its own"})
    with pytest.raises(Unreadable, match=r"written by a later cutk \(its schema is 3, and this one reads 2\)\. Update"):
        store.read("train", KEY)
    for number in range(3):
        folder = store.root / "train" / f"{number:064d}"
        folder.mkdir()
        first = {"labels": {}, "decided_by": {}, "environment": {}, "key": folder.name, "sha256": "0" * 64}
        (folder / "record.json").write_text(json.dumps(first, indent=1))
        with pytest.raises(Unreadable, match=r"written by cutk 0\.1, whose records this one does not read"):
            store.read("train", folder.name)
    store.write(run_of(1), WEIGHTS)
    told = []
    assert [run.key for run in store.runs(told.append)] == [run_of(1).key]
    assert len(told) == 2
    assert any(line.startswith("3 runs are left out in ") and "cutk 0.1" in line for line in told)
    assert any(line.startswith("1 run is left out in ") and "later cutk" in line for line in told)
    assert not damaged(store)


# Texts.


def test_half_a_character_is_written_and_read(store):
    run = run_of(error="no such file: a\udc80b")
    run.attempts[0].options["pa\udc80th"] = "a\ud800"
    store.write(run, WEIGHTS)
    assert store.read("train", KEY).attempts[0].error == "no such file: a?b"
    store.note_failure(KEY, FAILURE.model_copy(update={"reason": "\udfff"}))
    assert store.failures()[0].reason == "?"


def test_a_hostile_folder_sends_nothing_to_the_terminal(tmp_path):
    store = Store(tmp_path / "a\x1b[31mb")
    store.write(RUN, WEIGHTS)
    (store.root / "train" / KEY / "record.json").write_text("\x1b]0;title\x07")
    told = []
    with pytest.raises(cutk.UsageError):
        store.runs(told.append)
    assert told
    assert all(line.isprintable() for line in told)


# Processes that are killed, and several at once.


def test_an_interrupted_write_leaves_nothing(store, monkeypatch):
    monkeypatch.setattr("cutk.run.store.write_record", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        store.write(RUN, WEIGHTS)
    assert not list((store.root / "train").iterdir())


@pytest.fixture(params=["gone", "not asked for"])
def dead(monkeypatch, request):
    """Return names of temporary files as a process that is dead by now gave them."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    if request.param == "gone":
        process.wait()
    elif sys.platform == "linux":
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    else:
        pytest.skip("a process that is over and still there is told from one that runs by /proc")
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: process.pid)
        names = [own_name() for _ in range(3)]
    yield names
    process.wait()


def test_leftovers_go_when_their_process_is_dead(store, dead):
    (store.root / "train" / dead[0]).mkdir(parents=True)
    (store.root / "failed").mkdir()
    (store.root / "failed" / dead[1]).write_text("")
    (store.root / "train" / dead[2]).symlink_to(store.root / "failed")
    mine = store.root / "train" / own_name()
    mine.mkdir()
    os.utime(mine, (0, 0))  # a clock that jumped
    others = store.root / "train" / ".tmp-another.machine-1-ab"
    for path, age in ((others, 29), (others.with_name(others.name + "c"), 31), (others.with_name(".tmp-old"), 31)):
        path.mkdir()
        os.utime(path, (time.time() - age * 24 * 3600,) * 2)
    store.open()
    assert {path.name for path in (store.root / "train").iterdir()} == {mine.name, others.name}
    assert not list((store.root / "failed").iterdir())


def test_a_run_is_not_lost_between_the_two_steps_of_its_replacement(store, record, dead):
    old = store.root / "train" / f"{dead[0]}o"
    record.parent.rename(old)
    store.write(run_of(score=0.75), WEIGHTS)
    record.parent.rename(old.with_name(dead[0]))
    store.open()
    assert store.read("train", KEY).attempts[0].score == 0.75
    assert [path.name for path in (store.root / "train").iterdir()] == [KEY]


def test_a_replacement_that_fails_half_way_loses_nothing(store, record, monkeypatch):
    real, calls = os.rename, []

    def failing(source, target):
        calls.append(source)
        if len(calls) == 2:  # the first moves the old run out of the way
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(cutk.CellError, match=r"cannot be written \(Input/output error\)\. Finished cells are kept"):
        store.write(run_of(score=0.75), {"w": torch.zeros(1)}, replace=True)
    assert len(calls) == 3
    assert store.read("train", KEY).attempts[0].score == 0.5
    assert [path.name for path in (store.root / "train").iterdir()] == [KEY]


@pytest.mark.parametrize("left", ["whole", "half"])
def test_a_run_that_was_written_but_not_moved_is_taken_over(store, record, dead, left):
    record.parent.rename(temporary := store.root / "train" / dead[0])
    if left == "half":
        (temporary / "weights.safetensors").write_bytes(b"half")
    store.open()
    assert (store.read("train", KEY) is None) == (left == "half")
    assert not list(store.root.glob("*/.tmp-*"))


@pytest.mark.parametrize("number", NO_PROOF, ids=errno.errorcode.get)
def test_what_the_reader_of_weights_cannot_open_is_no_damage(store, record, monkeypatch, number):
    errors = [
        FileNotFoundError(f"No such file or directory: {record}"),  # as the library says, whatever it was
        SafetensorError(f"I/O error: {os.strerror(number)} (os error {number})"),
    ]
    for error in errors:
        monkeypatch.setattr("cutk.run.files.load_file", Mock(side_effect=error))
        with pytest.raises(Unreadable, match="It stays where it is"):
            store.weights("train", KEY)
    assert record.is_file()
    assert not damaged(store)


def test_weights_that_are_replaced_while_they_are_read_are_no_damage(store, record, monkeypatch):
    real, calls = hashlib.file_digest, []

    def replaced_before(file, name):
        calls.append(name)
        if len(calls) == 1:
            store.write(run_of(score=0.75), {"w": torch.zeros(7)}, replace=True)
            with record.with_name("weights.safetensors").open("rb") as now:
                return real(now, name)
        return real(file, name)

    monkeypatch.setattr(hashlib, "file_digest", replaced_before)
    assert torch.equal(store.weights("train", KEY)["w"], torch.zeros(7))
    assert not damaged(store)


def several():
    """Return what starts processes, each of which would have to import torch otherwise."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cutk.run.store"])
    return context


def _write_forever(root, number, started):
    store = Store(root)
    started.set()
    for turn in range(10_000):
        run = run_of(turn % 10, score=float(number))
        store.write(run, {"w": torch.full((1000,), float(turn % 10))}, replace=turn % 3 == 0)
        store.update(run)


def test_processes_that_are_killed_lose_nothing(store):
    context = several()
    for turn in range(12):
        started = context.Event()
        writer = context.Process(target=_write_forever, args=(store.root, turn, started))
        writer.start()
        assert started.wait(60)
        time.sleep(0.003 * turn)  # anywhere in its work
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        store.open()
        assert not list(store.root.glob("*/.tmp-*"))
        for run in store.runs() if any((store.root / "train").glob("[!.]*")) else ():
            assert float(store.weights("train", run.key)["w"][0]) == run.labels.seed
    assert not damaged(store)


def _write_many(root, number):
    store = Store(root)
    for i in range(30):
        store.open()
        store.write(run_of(i, score=float(number)), {"w": torch.full((100,), float(i))}, replace=i % 2 == 0)


def test_two_processes_on_one_folder_lose_nothing(store):
    context = several()
    writers = [context.Process(target=_write_many, args=(store.root, n)) for n in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert [run.labels.seed for run in store.runs()] == list(range(30))
    for i in range(30):
        assert float(store.weights("train", run_of(i).key)["w"][0]) == i
    assert not list(store.root.glob("*/.tmp-*"))
    assert not damaged(store)


def test_what_is_not_asked_for_is_not_parsed(store, monkeypatch):
    attempts = [
        {"score": 0.1},
        {"score": 0.2, "failed_metrics": {"m": "broken"}},
        {"error": "no model"},
        {"score": 0.4},
    ]
    store.write(Run.model_validate({**RUN.model_dump(by_alias=True), "attempts": attempts, "selected": 1}), {})
    parsed, parse = [], Attempt.model_validate_json
    monkeypatch.setattr(Attempt, "model_validate_json", lambda text: parsed.append(text) or parse(text))
    run = store.read("train", KEY)
    assert len(parsed) == 1
    assert run.chosen.score == 0.2
    assert [attempt.error for attempt in run.attempts.failed()] == ["", "no model"]
    assert len(parsed) == 2
    assert [attempt.score for attempt in run.attempts] == [0.1, 0.2, None, 0.4]
    assert len(parsed) == 4
    assert run.attempts[1:][0] is run.chosen


def test_the_seeds_of_what_is_there(store):
    assert store.seeds() == set()
    for seed, unlearned in ((3, False), (3, True), (5, False)):
        store.write(run_of(seed, unlearned=unlearned), WEIGHTS)
    damaged = store.write(run_of(7), WEIGHTS)
    (store.root / "train" / damaged.key / "record.json").write_text("{}")
    assert store.seeds() == {3, 5}
