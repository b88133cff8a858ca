"""A method in a process of its own: the same numbers, nothing of the truth, and no end of the sweep with its own."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys

import pytest
import torch

import cutk
from cutk.run.plan import Plan, layer, read_preset
from cutk.run.setup import resolve
from cutk.run.store import Store
from cutk.run.study import Study
from cutk.run.worker import Worker

SEED = 987654321
PLUGIN = '''
import gc, os, pickle, signal, sys, time
from pathlib import Path
import cutk
import torch


class Spy(cutk.Unlearner):
    """Writes down all that it finds in its process."""

    name = "spy"

    class Options(cutk.Options):
        to: str = cutk.option("", help="where to")

    def unlearn(self, task, state=None):
        list(task.train.batches(None, 64, augment=True))
        everything = gc.get_objects()
        # What other tests left may have no storage: tensors of an export, say.
        plain = [thing for thing in everything if type(thing) in (torch.Tensor, torch.nn.Parameter)]
        tensors = [t for t in plain if t.device.type == "cpu" and t.layout == torch.strided and not t.is_complex()]
        whole = [torch.empty(0, dtype=t.dtype).set_(t.untyped_storage()) for t in tensors]
        values = [part for thing in everything for part in gc.get_referents(thing)]
        links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        files = [os.readlink(link) for link in links if os.path.lexists(link)]
        found = {
            "tensors": [t.detach().flatten().double().numpy().tobytes() for t in whole],
            "numbers": {value for value in values if type(value) is int},
            "words": {value for value in values if type(value) is str} | {*sys.argv, *os.environ.values(), os.getcwd()},
            "files": files,
        }
        with open(self.options.to, "wb") as file:
            pickle.dump(found, file)
        return task.original


class Dying(cutk.Unlearner):
    """Ends its process, or not."""

    name = "dying"

    class Options(cutk.Options):
        how: str = cutk.option("not", help="kill, exit, raise, garble, write, wait or not")

    def unlearn(self, task, state=None):
        print("printed by the method", flush=True)
        if self.options.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.options.how == "exit":
            os._exit(3)
        if self.options.how == "raise":
            raise RuntimeError("as it was told")
        if self.options.how == "garble":
            for fd in range(3, 16):
                try:
                    os.write(fd, b"A" * 16 + b"no message")
                except OSError:
                    pass
            time.sleep(600)
        if self.options.how == "write":
            task.train._x.fill_(0)
        if self.options.how == "wait":
            print("waiting", file=sys.stderr, flush=True)
            time.sleep(600)
        return task.original


class Reading(cutk.Unlearner):
    """Reads a file."""

    name = "reading"

    class Options(cutk.Options):
        file: Path = cutk.option(Path("there.txt"), help="which")

    def unlearn(self, task, state=None):
        task.log.scalar("found", torch.tensor(self.options.file.read_text() == "there"))
        return task.original


@cutk.hookimpl
def cutk_unlearners():
    return [Spy, Dying, Reading]
'''
TINY = {
    "dataset": "fake",
    "manipulations": ["badnet"],
    "alphas": [0.5],
    "device": "cpu",
    "precision": "fp32",
    "threads": 1,
    "search": "default",
    "metrics": ["corrected_accuracy", "retain_accuracy"],
}
RECIPE = {"steps": 20, "batch_size": 32, "crop_padding": 1, "flip": True}


@pytest.fixture
def plugin(tmp_path):
    file = tmp_path / "hostile.py"
    file.write_text(PLUGIN)
    return file


@pytest.fixture
def bench(tmp_path, plugin):
    def go(unlearners, runs="runs", **over):
        options = {
            "convnet-small": {"width": 4},
            "fake": {"samples": 200, "test_samples": 80},
            **over.pop("options", {}),
        }
        chosen = {**TINY, "unlearners": unlearners, "seeds": [SEED], "recipe": RECIPE, "options": options, **over}
        return cutk.bench(**chosen, plugins=[plugin], runs=tmp_path / runs)

    return go


def numbers(report):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in report.records]


def test_every_method_gives_the_same_numbers_and_weights(bench, registry, tmp_path):
    names = [entry.name for entry in registry.of_kind("unlearner")]
    metrics = [*TINY["metrics"], "detection_roc", "detection_alpha_error"]
    methods = {"unlearners": [*names, "none+seeded-probe"], "metrics": metrics}
    here, there = bench(**methods), bench(**methods, runs="isolated", isolate=True)
    assert not here.failures
    assert numbers(here) == numbers(there)
    suspecting = {r["unlearner"] for r in there.records if r["metrics"].get("detection_roc") is not None}
    assert suspecting == {"seal", "none+seeded-probe"}
    for record in here.records:
        (one,), (other,) = (
            tmp_path.glob(f"{runs}/*/{record['key']}/weights.safetensors") for runs in ("runs", "isolated")
        )
        assert one.read_bytes() == other.read_bytes()


def test_runs_are_read_by_either_and_say_how_they_came_about(bench, tmp_path):
    over = {"manipulations": ["interclass-confusion"], "runs": "isolated"}
    report = bench(["cf"], **over, isolate=True)
    isolated = {run.labels.role: run.environment.isolated for run in Store(tmp_path / "isolated").runs()}
    assert isolated == {"original": False, "gold": False, "unlearned": True}
    started = []
    again = bench(["cf"], **over, progress=lambda done, cells, what: started.append(done))
    assert started == [1, 2, 3]  # each of them there, none begun
    assert numbers(again) == numbers(report)


def spied(bench, tmp_path, **over):
    to = tmp_path / "found"
    report = bench(["spy"], options={"spy": {"to": str(to)}}, **over)
    assert [failed["reason"] for failed in report.failures] == []
    return pickle.loads(to.read_bytes())  # noqa: S301  # the test's own


@pytest.fixture
def secrets(registry, tmp_path):
    options = {"convnet-small": {"width": 4}, "fake": {"samples": 200, "test_samples": 80}}
    plan = {**TINY, "unlearners": ["none"], "seeds": [SEED], "recipe": RECIPE, "options": options}
    setup = resolve(Plan.parse(layer(read_preset("default", registry), plan)), registry)
    scenario = Worker(setup, Store(tmp_path / "unused")).scenario("badnet", SEED)
    truth = scenario.truth
    marked = torch.zeros(len(truth.train), dtype=torch.bool)
    marked[truth.manipulated] = True
    hidden = {
        "test samples": scenario.splits.test.x,
        "triggered test samples": truth.affected.x,
        "clean labels": truth.clean_labels,
        "S_m": truth.manipulated,
        "S_m as a mask": marked,
    }
    wanted = {name: value.flatten().double().numpy().tobytes() for name, value in hidden.items()}
    return wanted, scenario.splits.fingerprint(), truth.train.x.flatten().double().numpy().tobytes()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the spy looks there")
def test_a_spy_finds_the_truth_in_its_process_unless_it_is_isolated(bench, tmp_path, secrets):
    wanted, salt, samples = secrets

    def leaks(found):
        return {name for name, secret in wanted.items() if any(secret in tensor for tensor in found["tensors"])}

    found = spied(bench, tmp_path, runs="told-nowhere")
    assert leaks(found) == set(wanted)
    assert SEED in found["numbers"]
    assert any("told-nowhere" in word for word in found["words"])
    assert any(salt in word for word in found["words"])

    found = spied(bench, tmp_path, runs="told-nowhere-else", isolate=True)
    assert any(samples in tensor for tensor in found["tensors"])  # the walk does find what is there
    assert leaks(found) == set()
    assert SEED not in found["numbers"]
    for hidden in (salt, "told-nowhere", str(SEED), "badnet.count"):
        assert not any(hidden in word for word in (*found["words"], *found["files"]))


def test_a_method_whose_process_ends_fails_alone(bench, capfd):
    hows = ["kill", "exit", "raise", "garble", "not"]
    report = bench(["dying"], options={"dying": {"how": hows}}, search="grid", isolate=True)
    assert [failed["what"] for failed in report.failures] == ["point"] * 4
    reasons = [failed["reason"] for failed in report.failures]
    assert reasons[0] == "The method's process ended with signal 9, most often for want of memory."
    assert reasons[1] == "The method's process ended by itself, with exit code 3."
    assert reasons[2].startswith("RuntimeError: as it was told (hostile.py:")
    assert reasons[3].startswith("The method's process said what can't be understood")
    assert "in unlearn" in report.failures[2]["traceback"]
    assert report.records[-1]["options"] == {"how": "not"}
    out, err = capfd.readouterr()
    assert "printed by the method" in err
    assert "printed by the method" not in out


def test_a_file_that_is_named_from_here_is_found_there(bench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.txt").write_text("there")
    report = bench(["reading"], isolate=True)
    assert report.failures == []
    (path,) = (tmp_path / "runs" / "unlearn").glob("*/record.json")
    (attempt,) = json.loads(path.read_text())["attempts"]
    assert attempt["scalars"] == {"found": [1.0]}  # a number, though the method has told a truth


def test_a_method_that_writes_to_the_samples_fails(bench):
    report = bench(["dying"], options={"dying": {"how": "write"}}, isolate=True)
    assert [failed["reason"] for failed in report.failures] == [
        "It wrote to the samples, which every point shares. Work on a copy."
    ]


def test_what_the_other_process_lacks_is_refused_in_one_line(setup_of, having, tmp_path):
    class Unknown(cutk.Unlearner):
        name = "known-here-alone"

        def unlearn(self, task, state=None):
            return task.original

    setup = having(setup_of(isolate=True, alphas=[1.0]), unlearners=[(Unknown,)])
    results = Study(setup, Store(tmp_path)).run()
    (failure,) = results.failures
    assert failure.reason.startswith("The method's process can't begin: Unknown unlearner 'known-here-alone'.")


def test_a_method_ends_with_whoever_started_it(plugin, tmp_path):
    code = (
        f"import cutk; cutk.bench({TINY!r}, unlearners=['dying'], seeds=1, recipe={RECIPE!r}, isolate=True, "
        f"options={{'dying': {{'how': 'wait'}}}}, plugins=[{str(plugin)!r}], runs=None)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, cwd=tmp_path) as parent:
        for line in parent.stderr:
            if line == "waiting\n":
                break
        else:
            pytest.fail("the method was never called")
        parent.kill()
        parent.stderr.read()  # comes to its end when the last process that could write there has ended
