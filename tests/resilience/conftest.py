"""Studies that are killed, and machines that fail: what the tests of both need."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# The executors that have to stand everything. One more is one more line.
EXECUTORS = {
    "serial": "serial",
    "processes": "processes:2",
}
# What a clock or a gauge measured differs from run to run.
MEASURED = {"seconds", "peak_bytes", "unlearn_seconds", "peak_memory", "sha256"}
# `make soak` asks for all of it.
SOAK = int(os.environ.get("CUTK_SOAK", "0"))


def pytest_generate_tests(metafunc):
    if "executor" in metafunc.fixturenames:
        metafunc.parametrize("executor", EXECUTORS.values(), ids=EXECUTORS)


@pytest.fixture(scope="session")
def soak():
    """Say whether time is of no matter."""
    return bool(SOAK)


@pytest.fixture(scope="module")
def chance(request):
    """The same numbers in every run, or, for a soak, those of its number."""
    return random.Random(f"{request.module.__name__} {SOAK}")


class Ran:
    """How a run ended."""

    def __init__(self, status, events, writes, said):
        self.status, self.events, self.writes, self.said = status, events, writes, said

    @property
    def document(self):
        return json.loads(self.said[self.said.index("{\n") :])


class Bench:
    """A study of three cells for each seed in a folder of its own, run again and again by forks of one process."""

    ARGS = (
        *("bench", "-d", "fake", "-o", "fake.samples=40", "-o", "fake.test_samples=20", "--model", "linear"),
        *("-m", "badnet", "-o", "badnet.size=1", "-u", "cf", "-o", "cf.steps=1,2", "--alpha", "1", "--seeds", "1"),
        *("--recipe", "steps=2", "batch_size=16", "--threads", "1", "--precision", "fp32", "--device", "cpu"),
        *("--observer", "events", "--runs", "runs"),
    )

    def __init__(self, server, folder):
        self.server, self.folder, self.runs = server, folder, folder / "runs"
        self.turn = 0

    def order(self, *more, **fate):
        self.turn += 1
        say = str(self.folder / f"say-{self.turn}")
        args = list(self.ARGS)
        if "--seeds" in more:  # which is given once
            position = args.index("--seeds")
            del args[position : position + 2]
        args += more
        return {"args": args, "cwd": str(self.folder), "runs": str(self.runs), "say": say, **fate}

    def at_once(self, *orders):
        """Carry out orders, each as a process of its own."""
        self.server.stdin.write(json.dumps(orders) + "\n")
        self.server.stdin.flush()
        answer = self.server.stdout.readline()
        said = [Path(order["say"]) for order in orders]
        return [
            Ran(**each, said=path.read_text() if path.exists() else "")
            for each, path in zip(json.loads(answer), said, strict=True)
        ]

    def run(self, *more, **fate):
        return self.at_once(self.order(*more, **fate))[0]

    def events(self, name):
        """Return what the observer wrote of the last run."""
        path = self.folder / "events.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
        last = max(position for position, line in enumerate(lines) if line["event"] == "started")
        return [line for line in lines[last:] if line["event"] == name]

    def begin(self, folder=None):
        """Start from nothing, or from a copy of another runs folder."""
        shutil.rmtree(self.runs, ignore_errors=True)
        (self.folder / "events.jsonl").unlink(missing_ok=True)
        if folder:
            shutil.copytree(folder, self.runs)

    def stamps(self):
        """Return for each run that is there which files it is made of, and what of them isn't measured."""
        found = {}
        for path in sorted(self.runs.glob("*/[!.]*/record.json")):
            if path.parts[-3] in ("train", "unlearn"):
                weights = path.with_name("weights.safetensors")
                stamp = [(each.stat().st_ino, each.stat().st_mtime_ns) for each in (path, weights)]
                found[path.parts[-2]] = stamp, (plain(json.loads(path.read_text())), weights.read_bytes())
        return found

    def results(self):
        return {key: content for key, (_, content) in self.stamps().items()}

    def litter(self):
        """Return whatever is there besides runs and what is noted of them."""
        kept = {"record.json", "weights.safetensors"}
        files = [path for path in self.runs.rglob("*") if not path.is_dir() or path.name.startswith(".")]
        notes = set(self.runs.glob("memo/[!.]*.json"))
        runs = {path for path in files if path.name in kept and len(path.relative_to(self.runs).parts) == 3}
        return [str(path) for path in files if path not in runs | notes]

    def resumed(self, wanted, *more):
        """Go on after whatever happened: everything is as ``wanted``, and nothing finished was computed again."""
        before = self.stamps()
        ran = self.run(*more)
        assert (ran.status, "Warning" in ran.said, "Traceback" in ran.said) == (0, False, False), ran.said
        after = self.stamps()
        assert {key: content for key, (_, content) in after.items()} == wanted
        done = {key: stamp for key, (stamp, content) in before.items() if wanted[key] == content}
        assert {key: after[key][0] for key in done} == done
        read = {event["key"] for event in self.events("cell_finished") if event["read"]}
        assert set(done) <= read
        assert self.litter() == []
        return ran


def plain(record):
    """Return what of a record has to be the same in every run: all but what a clock or a gauge measured."""
    gauged = {identity for identity, metric in record["measured"].items() if metric["name"] in MEASURED}

    def without(value):
        if isinstance(value, dict):
            return {name: without(each) for name, each in value.items() if name not in MEASURED | gauged}
        return [without(each) for each in value] if isinstance(value, list) else value

    return without(record)


@pytest.fixture(scope="session")
def server():
    """A process that has imported everything."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("warm.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUTK_PLUGINS": "", "COLUMNS": "140"},
    )
    yield process
    process.stdin.close()
    assert process.wait() == 0
    process.stdout.close()


@pytest.fixture
def bench(server, tmp_path):
    return Bench(server, tmp_path)


@pytest.fixture(scope="module")
def uninterrupted(server, tmp_path_factory):
    """Run a study once that nothing happens to, for all tests that compare with it: a folder and its bench."""
    known = {}

    def go(*more):
        if more not in known:
            bench = known[more] = Bench(server, tmp_path_factory.mktemp("uninterrupted"))
            bench.whole = bench.run(*more)
            assert bench.whole.status == 0, bench.whole.said
            assert bench.litter() == []
        return known[more]

    return go
