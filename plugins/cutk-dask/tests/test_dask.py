"""Cells on a cluster: the same results, whatever happens to workers, scheduler and study."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import dask
import pytest
from cutk_dask import Dask
from cutk_dask.cluster import Jobs, _require_fit, at_once, opened
from dask.distributed import Client, LocalCluster
from dask.utils import parse_timedelta

import cutk
from cutk.testing import check_executor

PATIENCE = 300


def executor(address):
    return f"dask:{address}"


@pytest.fixture(scope="module")
def serially(tmp_path_factory):
    """What one process gives, computed once."""
    known = {}

    def go(bench):
        if not known:
            folder = tmp_path_factory.mktemp("serially")
            known["found"] = bench(how="warn", runs=folder), folder
        return known["found"]

    return go


@pytest.mark.parametrize("shared", [True, False])
def test_a_cluster_gives_what_one_process_gives_bit_for_bit(
    shared, bench, address, serially, records, weights, tmp_path
):
    alone, folder = serially(bench)
    options = {"dask": {"shared": shared, "resources": "GPU=1"}}
    found = bench(executor(address), "warn", options=options, observers=["events"])
    assert found.failures == []
    assert records(found.records) == records(alone.records)
    assert len(found.records) == 4
    assert weights(Path("runs")) == weights(folder)
    # What workers have to tell is heard in its order, and before the result.
    events = [json.loads(line) for line in Path("events.jsonl").read_text(encoding="utf-8").splitlines()]
    cell = {"role": "unlearned", "manipulation": "badnet", "seed": 0, "unlearner": "wild", "alpha": 1.0}
    mine = [event for event in events if event.get("cell") == cell]
    assert [event["event"] for event in mine] == ["cell_started", *["progress", "scalar"] * 3, "cell_finished"]
    assert [event["done"] for event in mine if event["event"] == "progress"] == [0, 1, 2]
    warnings = [event["text"] for event in events if event["event"] == "warning"]
    assert set(warnings) == {"The unlearner 'wild' changed the environment variables; that was put back."}


def test_runs_that_travel_are_read_completed_and_mended(bench, address, capsys):
    options = {"dask": {"shared": False}}
    before = bench(executor(address), options=options)
    again = bench(executor(address), options=options, metrics=["corrected_accuracy", "retain_class_accuracy"])
    assert [record["key"] for record in again.records] == [record["key"] for record in before.records]
    assert all(record["breakdowns"] for record in again.records)
    # Whose weights are damaged is computed again from what is left.
    original = next(record["key"] for record in before.records if record["role"] == "original")
    path = Path("runs") / "train" / original / "weights.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert bench(executor(address), options=options, alphas=[0.25]).failures == []
    assert path.read_bytes() == whole
    assert list(Path("runs", "damaged").iterdir()) != []


def test_a_plugin_that_a_worker_lacks_is_named(bench, address, wild, monkeypatch):
    monkeypatch.setenv("CUTK_PLUGIN_PATH", str(wild))
    found = bench(executor(address), plugins=())
    assert found.records == []
    reason = found.failures[0]["reason"]
    assert reason.startswith("The worker on '")
    assert "can't carry out the plan: Unknown unlearner 'wild'." in reason


def hide(module):
    sys.modules[f"hidden {module}"] = sys.modules.get(module)
    sys.modules[module] = None


def show(module):
    sys.modules[module] = sys.modules.pop(f"hidden {module}")
    if sys.modules[module] is None:
        del sys.modules[module]


@pytest.mark.parametrize("module", ["cutk_dask.job", "cutk.run.jobs"])
def test_a_package_that_a_worker_lacks_is_named(module, bench, address):
    with Client(address, set_as_default=False) as client:
        client.run(hide, module)
        try:
            found = bench(executor(address))
        finally:
            client.run(show, module)
    assert found.records == []
    assert f"import of {module} halted" in found.failures[0]["reason"]
    assert "Traceback" not in found.failures[0]["reason"]
    assert any(said in found.failures[0]["reason"] for said in ("Install it there", "Install the same packages there"))


def test_a_runs_folder_that_workers_do_not_see_is_named(bench, address):
    with Client(address, set_as_default=False) as client:
        client.run(hide_folders)
        try:
            found = bench(executor(address))
        finally:
            client.run(show_folders)
    assert found.records == []
    assert "doesn't see the runs folder" in found.failures[0]["reason"]


def hide_folders():
    Path.known, Path.is_dir = Path.is_dir, lambda self: False


def show_folders():
    Path.is_dir = Path.known
    del Path.known


def test_cells_that_wait_for_a_worker_are_told_of_once(monkeypatch):
    monkeypatch.setattr("cutk_dask.cluster.ALONE", 0.2)
    heard, told = [], threading.Event()

    def hear(*said):
        heard.append(said)
        told.set()

    with (
        LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0", silence_logs=50) as empty,
        Client(empty, set_as_default=False) as client,
    ):
        jobs = Jobs(client, hear, {}, 1)
        assert not told.wait(1)  # nobody waits
        jobs.submit(len, [])
        assert told.wait(PATIENCE)
        told.clear()
        assert not told.wait(1)
        jobs.close()
    at = empty.scheduler_address
    text = (
        f"No worker of the scheduler at '{at}' can take a cell since 0.2 s, and 1 wait. Start some with: dask worker "
        f"{at} --nthreads 1. Ctrl-C stops, and what is finished is kept."
    )
    assert heard == [("warning", (text,))]


def test_a_cluster_of_its_own_gives_up_no_worker_and_says_what_its_own_lack():
    options = Dask.Options(workers=1)
    before = dask.config.get("distributed.deploy.lost-worker-timeout")
    with opened(options, 1, print) as jobs:
        # Dask would close for ever what isn't there again after so many seconds, importing torch say.
        assert parse_timedelta(dask.config.get("distributed.deploy.lost-worker-timeout")) > 10**6
        jobs._futures["waiting"] = None
        assert "most often for want of memory: try fewer, or more dask.memory. Ctrl-C stops" in jobs._alone()
        jobs._futures.clear()
    assert dask.config.get("distributed.deploy.lost-worker-timeout") == before


def test_it_keeps_to_what_cutk_expects(address):
    check_executor(Dask, options={"scheduler": address})


# What is refused.


def refusal(bench, *arguments, **more):
    with pytest.raises(cutk.UsageError) as refused:
        bench(*arguments, **more)
    assert not Path("runs").exists()
    return str(refused.value)


def test_a_scheduler_that_cannot_be_reached_is_named_after_the_stated_wait(bench):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{bound.getsockname()[1]}"
        said = refusal(bench, executor(address), options={"dask": {"timeout": 0.5}})
    assert said.startswith(f"No Dask scheduler answers at '{address}' within 0.5 s (")
    assert said.endswith("Start one with: dask scheduler")
    assert "\n" not in said


def test_a_scheduler_without_workers_is_named(bench):
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as empty:
        said = refusal(bench, executor(empty.scheduler_address), options={"dask": {"timeout": 0.5}})
        with Dask(Dask.Options(scheduler=empty.scheduler_address, jobs=7)).open(print) as pool:
            assert pool.slots == 7
    assert "has no worker after 0.5 s. Start some with: dask worker tcp://127.0.0.1:" in said


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"resources": "GPU=2"}, "No worker has GPU=2. Start some with: dask worker --nthreads 1 --resources GPU=2"),
        ({"resources": "GPU"}, "Option 'dask.resources': expected NAME=NUMBER, such as GPU=1, got 'GPU'."),
        ({"resources": "GPU=0"}, "Option 'dask.resources': expected NAME=NUMBER, such as GPU=1, got 'GPU=0'."),
        ({"workers": 2}, "Option 'dask.workers' is for a cluster that is started here"),
        ({"retries": 1}, "Option 'dask.retries' is for a cluster that is started here"),
        ({"jobs": 0}, "Option 'dask:ADDRESS.jobs': expected an integer ≥ 1 and ≤ 100000 or none, got 0."),
    ],
)
def test_what_a_running_cluster_cannot_do_is_refused(options, expected, bench, address):
    said = refusal(bench, executor(address), options={"dask": options})
    assert said.startswith(expected.replace("ADDRESS", address)), said


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"workers": 0}, "Option 'dask.workers': expected an integer ≥ 1 and ≤ 1024 or none, got 0."),
        ({"jobs": 3}, "Option 'dask.jobs' is for a running scheduler. Leave it out."),
        *(
            (
                {"memory": text},
                f"Option 'dask.memory': expected auto, 0, or at least 512MiB, such as 4GiB, got '{text}'.",
            )
            for text in ("lots", "-1GiB", "1MiB", "0.5")
        ),
        ({"folder": "/proc/none"}, "A Dask cluster can't be started here: "),
    ],
)
def test_what_a_cluster_of_its_own_cannot_do_is_refused(options, expected, bench):
    assert refusal(bench, "dask", options={"dask": options}).startswith(expected)


def test_an_address_is_one(bench):
    said = refusal(bench, "dask:nowhere")
    assert said == "Executor 'dask:nowhere': expected a scheduler's address, such as tcp://HOST:8786."


def test_what_a_worker_would_do_at_once():
    assert at_once({"nthreads": 4}, {}) == 4
    assert at_once({"nthreads": 4, "resources": {"GPU": 1}}, {"GPU": 1}) == 1
    assert at_once({"nthreads": 1, "resources": {"GPU": 8}}, {"GPU": 2}) == 1
    assert at_once({"nthreads": 1, "resources": {}}, {"GPU": 1}) == 0


HERE = {"python": "3.11.7.final.0", "distributed": "2026.8.0", "cutk": "0.2.0", "cutk-dask": "0.2.0"}


@pytest.mark.parametrize(
    ("nthreads", "scheduler", "worker", "expected"),
    [
        (1, {}, {"python": "3.11.9.final.0"}, ""),
        (1, {}, {"python": "3.12.1.final.0"}, "The worker at 'tcp://w' has python 3.12, and here is 3.11."),
        (
            1,
            {},
            {"cutk": "0.1.0"},
            "The worker at 'tcp://w' has cutk 0.1.0, and here is 0.2.0. Install the same on both.",
        ),
        (1, {}, {"cutk-dask": None}, "The worker at 'tcp://w' has cutk-dask (none), and here is 0.2.0."),
        (1, {"distributed": "2025.1"}, {}, "The scheduler at 'tcp://s' has distributed 2025.1, and here is 2026.8.0."),
        (4, {}, {}, "The worker at 'tcp://w' would compute 4 cells at once, and each needs a process to itself."),
    ],
)
def test_other_versions_and_crowded_workers_are_refused(nthreads, scheduler, worker, expected):
    there = {"client": HERE, "scheduler": {**HERE, **scheduler}, "workers": {"tcp://w": {**HERE, **worker}}}
    about = {name: {"packages": each} for name, each in there.items()} | {
        "workers": {name: {"packages": each} for name, each in there["workers"].items()}
    }
    client = SimpleNamespace(
        scheduler_info=lambda n_workers: {"workers": {"tcp://w": {"nthreads": nthreads}}},
        get_versions=lambda packages: about,
        scheduler=SimpleNamespace(address="tcp://s"),
    )
    if not expected:
        return _require_fit(client, {}, any_number=False)
    with pytest.raises(cutk.UsageError) as refused:
        _require_fit(client, {}, any_number=False)
    assert str(refused.value).startswith(expected)
    return None


# What ends a study.


def is_there(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # One that nobody has waited for is over nevertheless.
    with open(f"/proc/{process}/stat", encoding="utf-8") as file:
        return file.read().rpartition(") ")[2][0] != "Z"


def waiting(process, number):
    """Return the processes of methods that wait, once there are so many of them."""
    mark = Path("mark")
    while process.poll() is None:
        known = mark.read_text(encoding="utf-8").splitlines() if mark.exists() else []
        if len(known) >= number:
            return [int(each) for each in known]
        threading.Event().wait(0.05)
    raise AssertionError(process.communicate())


def test_ctrl_c_cancels_its_own_tasks_on_a_running_cluster(started, cluster, address):
    process = started("wait", "--executor", executor(address))
    workers = waiting(process, 2)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out) == (130, ""), err
    assert "Traceback" not in err
    with Client(address, set_as_default=False) as client:
        # Each worker has one thread, and it is free.
        futures = [
            client.submit(os.getpid, workers=[each], pure=False)
            for each in client.scheduler_info(n_workers=-1)["workers"]
        ]
        assert {future.result(PATIENCE) for future in futures} == set(workers)


# The last of those that share a cluster: it costs workers that have imported what cells need.
def test_a_method_that_kills_its_worker_every_time_costs_its_own_cell(bench, address):
    found = bench(executor(address), "always")
    (failure,) = found.failures
    assert (failure["unlearner"], failure["alpha"]) == ("wild", 0.5)
    assert failure["reason"].startswith("Its worker was lost, the last of 2 times at tcp://127.0.0.1:")
    assert len(found.records) == 3


@pytest.fixture
def processes():
    """Start commands of Dask's, and kill them in the end."""
    begun = []

    def go(*command):
        begun.append(
            subprocess.Popen(
                [sys.executable, "-m", "dask", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        )
        return begun[-1]

    yield go
    for process in begun:
        process.kill()
        process.wait()


def test_a_scheduler_that_is_lost_leaves_what_is_finished(started, processes):
    scheduler = processes("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", "s")
    while not (Path("s").exists() and Path("s").read_text(encoding="utf-8").endswith("}")):
        assert scheduler.poll() is None
        threading.Event().wait(0.05)
    address = json.loads(Path("s").read_text(encoding="utf-8"))["address"]
    processes("worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard")
    process = started("wait", "--executor", executor(address))
    waiting(process, 1)
    scheduler.kill()
    out, err = process.communicate()
    assert process.returncode == 1, err
    found = json.loads(out)
    assert [record["role"] for record in found["records"]] == ["original", "gold"]
    reasons = {failure["reason"] for failure in found["failures"]}
    assert len(found["failures"]) == 2
    assert reasons == {
        f"The scheduler at '{address}' was lost. What is finished is kept, and the same command goes on from there."
    }
    assert "Traceback" not in err
    assert len(list(Path("runs").glob("train/*/record.json"))) == 2


def test_a_cluster_of_its_own_survives_a_worker_and_keeps_to_itself_what_is_printed(started):
    process = started("once", "--executor", "dask", "-o", "dask.workers=1", "-o", "dask.shared=false")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert Path("mark").exists()
    assert len(json.loads(out)["records"]) == 4
    assert "printed by a method" in err
    assert "[4/4] " in err
    assert "Traceback" not in err
    assert "distributed." not in err


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
def test_ctrl_c_ends_the_workers_of_a_cluster_of_its_own(started):
    process = started("wait", "--executor", "dask", "-o", "dask.workers=2")
    workers = waiting(process, 2)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, err
    assert out == ""
    assert "Interrupted. Finished cells are in 'runs'; the same command goes on from there." in err
    assert "Traceback" not in err
    assert [each for each in workers if is_there(each)] == []
