from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

import cutk
from cutk.cli import main
from cutk.data.batches import ResidentTrainSet
from cutk.learning.recipe import Recipe
from cutk.plugins.registry import Registry, load_registry
from cutk.problem.scenario import Scenario
from cutk.run.plan import Plan, layer, read_preset
from cutk.run.setup import resolve

ROOT = Path(__file__).parents[1]
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # which MLflow reads when it is imported

# How long an example takes says something of the machine and of who else is at it.
settings.register_profile("cutk", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("cutk")

# A benchmark of a second or two: what tests run that need one.
TINY = {
    "dataset": "fake",
    "unlearners": ["ssd"],
    "alphas": [0.5, 1.0],
    "seeds": 1,
    "precision": "fp32",
    "device": "cpu",
    "recipe": {"steps": 20, "batch_size": 32},
    "options": {"ssd": {"selection_weight": [1, 10], "dampening": 1}, "convnet-small": {"width": 4}},
}


# Fixtures that take seconds. The tests that share one go to one worker, which is the only one that waits for it.
COSTLY = ("poisoned", "confused", "written", "page_file", "everything", "uri", "undisturbed")


@pytest.hookimpl(wrapper=True, tryfirst=True)  # xdist reads the marks in the same hook
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    for item in items:
        shared = next((name for name in COSTLY if name in getattr(item, "fixturenames", ())), None)
        if shared:
            item.add_marker(pytest.mark.xdist_group(f"{item.path.parent.name}, {shared}"))
    yield
    if not config.getoption("loadgroup", default=False):
        return
    # The name of a group is the end of an item's. xdist 3.8 writes it where pytest 9.2 no longer looks.
    for item in items:
        mark = item.get_closest_marker("xdist_group")
        if mark is not None and not item.nodeid.endswith(ending := f"@{mark.args[0]}") and hasattr(item, "_id"):
            item._id = coerced(item.nodeid + ending)


def coerced(name: str) -> object:
    """Return a name as pytest holds it from 9.2 on."""
    from _pytest.nodeid import coerce_node_id

    return coerce_node_id(name)


@pytest.fixture(scope="session")
def registry() -> Registry:
    """The built-in components alone, whatever else is installed."""
    return load_registry({"CUTK_PLUGINS": ""})


@pytest.fixture
def setup_of(registry):
    """Resolve the tiny plan with changes."""

    def make(**over):
        return resolve(Plan.parse(layer(layer(read_preset("default", registry), TINY), over)), registry)

    return make


@pytest.fixture
def tiny_recipe(registry) -> Recipe:
    sgd = registry.get("recipe", "sgd").component
    options = sgd.Options(steps=20, batch_size=32, crop_padding=0, flip=False)
    return sgd(options).on(torch.device("cpu"), "fp32")


@pytest.fixture
def tiny_scenario(registry, tiny_recipe) -> Scenario:
    dataset = registry.get("dataset", "fake").component
    manipulation = registry.get("manipulation", "badnet").component
    model = registry.get("model", "convnet-small").component
    return Scenario(
        dataset(dataset.Options(samples=200, test_samples=80)).load(),
        [("badnet", manipulation(manipulation.Options(count=20)))],
        model(model.Options(width=4)),
        tiny_recipe,
        seed=0,
        identification=registry.get("identification", "uniform").component(),
    )


@pytest.fixture
def images_of():
    """Make images of random pixels."""

    def make(count=10, channels=1, size=8, classes=3, seed=0) -> cutk.Samples:
        generator = torch.Generator().manual_seed(seed)
        pixels = torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)
        return cutk.Samples(pixels, torch.arange(count) % classes, tuple(f"c{i}" for i in range(classes)))

    return make


@pytest.fixture
def plain_set(images_of):
    """A training set whose normalisation only scales to 0 … 1."""

    def make(images=None, **kwargs) -> ResidentTrainSet:
        images = images or images_of()
        channels = images.shape[0]
        return ResidentTrainSet(images, cutk.Normalisation((0.0,) * channels, (1.0,) * channels), **kwargs)

    return make


class Ran:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Run the command line in this process, in an empty folder, with the built-in plugins alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUTK_PLUGINS", os.environ.get("CUTK_PLUGINS", ""))
    monkeypatch.setenv("COLUMNS", "140")

    def go(*args: str) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main([str(arg) for arg in args])
        captured = capsys.readouterr()
        code = exit_info.value.code
        return Ran(code if isinstance(code, int) else 0 if code is None else 1, captured.out, captured.err)

    return go


@pytest.fixture
def shell():
    """Run a command as its own process."""

    def go(*args: str, cwd: Path, env: dict[str, str] | None = None, timeout: float = 1200):
        return subprocess.run(
            [str(arg) for arg in args],
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return go


class Started:
    """A command that runs. Where nothing comes of it for minutes, it says where each of its threads is, and ends."""

    PATIENCE = 180.0  # on a machine that twenty others share, importing torch alone takes half a minute

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.said = process, ""

    @contextmanager
    def _patience(self):
        # All processes of the group: faulthandler prints their stacks on the stderr that they share.
        limit = threading.Timer(self.PATIENCE, os.killpg, (self.process.pid, signal.SIGABRT))
        limit.start()
        try:
            yield
        finally:
            limit.cancel()

    def until(self, pattern: str, times: int = 1) -> list[str]:
        """Return what is found on its stderr, once it is there so often.

        It may be anywhere in a line: what several processes print at a time comes in pieces.
        """
        found: list[str] = []
        while len(found) < times:
            with self._patience():
                line = self.process.stderr.readline()
            assert line, self.said
            self.said += line
            found += re.findall(pattern, line)
        return found

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> tuple[int, str]:
        """Return its exit status and what it printed, when no process is left that could print."""
        with self._patience():
            self.said += self.process.stderr.read()
            return self.process.wait(), self.process.stdout.read()


@pytest.fixture
def started():
    """Start a command as a process, in a group of its own."""
    begun = []

    def go(*args: str, cwd: Path, env: dict[str, str] | None = None) -> Started:
        process = subprocess.Popen(
            [str(arg) for arg in args],
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1", **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Where the tests themselves run in the background, they were told to ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        begun.append(process)
        return Started(process)

    yield go
    for process in begun:
        process.kill()
        process.communicate()


@pytest.fixture
def python() -> str:
    return sys.executable


@pytest.fixture(scope="module")
def browser():
    """A real one, for pages."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium is installed")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()
