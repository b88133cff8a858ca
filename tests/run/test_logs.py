"""What is logged, here and in workers elsewhere."""

from __future__ import annotations

import logging
import pickle
from dataclasses import replace

import pytest

import cutk
from cutk.guard import watched
from cutk.run.logs import LOG, level, relog, sent
from cutk.run.study import Study


@pytest.fixture
def lines(caplog):
    """Return what is logged, at this level and above."""

    def read(least="DEBUG"):
        numbers = logging.getLevelNamesMapping()
        return [r.getMessage() for r in caplog.records if r.name.startswith("cutk.") and r.levelno >= numbers[least]]

    caplog.set_level("DEBUG", "cutk")
    return read


def found(lines, *words):
    return [line for line in lines if all(word in line for word in words)]


def test_a_study_says_what_it_opens_computes_and_reads(bench, setup_of, lines):
    results, _ = bench(setup_of(alphas=[1.0]))
    info = lines("INFO")
    (opened,) = found(info, "Opened the dataset 'fake'")
    assert "400 training and 200 test samples" in opened
    (threads,) = found(info, "threads: ")
    assert "cpu" in threads
    assert "operations" in threads
    for run, cell in zip(results.runs, ("original", "gold", "ssd at α = 1"), strict=True):
        for word in ("started", "computed in"):
            assert found(info, f"badnet, seed 0: {cell}: {word}", run.key), (cell, word)
    assert found(info, "3 of 3 cells ended after")
    everything = lines()
    (plan,) = found(everything, "The plan as it is run")
    assert '"selection_weight"' in plan
    assert len(found(everything, "ssd at α = 1: {", "took", "score")) == 2  # points of the grid
    assert not lines("WARNING")


def test_what_was_read_is_said_to_be_so(bench, setup_of, lines, caplog):
    bench(setup_of(alphas=[1.0]))
    caplog.clear()
    bench(setup_of(alphas=[1.0]))
    assert len(found(lines("INFO"), ": read in", "key ")) == 3
    assert not found(lines("INFO"), "computed in")


def test_a_failure_is_said_with_its_reason_and_below_that_the_way_there(bench, setup_of, having, lines):
    class Broken(cutk.Unlearner):
        """Fails."""

        name = "broken"

        def unlearn(self, task, state=None):
            raise ZeroDivisionError("it was a test")

    bench(having(setup_of(alphas=[1.0]), unlearners=[(Broken,)]))
    (failed,) = found(lines("INFO"), "broken at α = 1: failed:")
    assert "ZeroDivisionError: it was a test" in failed
    assert found(lines(), "Traceback")
    assert not lines("WARNING")  # observers are told, and tell


def test_files_that_are_set_aside_and_cleared_are_named(bench, setup_of, lines, tmp_path):
    bench(setup_of(alphas=[1.0]))
    (weights,) = tmp_path.glob("runs/unlearn/*/weights.safetensors")
    weights.write_bytes(b"")
    bench(setup_of(alphas=[1.0]))
    (aside,) = found(lines("INFO"), "Set aside")
    assert str(weights.parent) in aside


def test_workers_log_in_the_studys_process_with_their_names(setup_of, registry, tmp_path, caplog, monkeypatch):
    from cutk.run.chosen import Chosen
    from cutk.run.store import Store

    monkeypatch.setenv("CUTK_PLUGINS", "")
    entry = registry.get("executor", "processes:2")
    caplog.set_level("INFO", "cutk")
    setup = setup_of(alphas=[1.0], unlearners=["none"], options={}, recipe={"steps": 3})
    setup = replace(setup, executor=Chosen(entry, (entry.component.Options(workers=2),)))
    Study(setup, Store(tmp_path / "runs")).run()
    workers = {r.process for r in caplog.records if "computed in" in r.getMessage()}
    assert workers
    for record in caplog.records:
        assert record.levelno >= logging.INFO
        if record.process in workers:
            assert "/SpawnProcess-" in record.processName


def test_records_are_sent_as_plain_data_and_only_from_the_level_on():
    heard = []
    logger = logging.getLogger("cutk.a.worker")
    before = logging.getLogger("cutk").level
    with sent(logging.INFO, lambda name, arguments: heard.append((name, pickle.loads(pickle.dumps(arguments))))):  # noqa: S301
        logger.debug("too little")
        logger.info("%s of %s", 1, object)
        try:
            raise ValueError(lambda: "what can't be pickled")
        except ValueError:
            logger.exception("it broke")
    logger.error("nobody listens")
    assert logging.getLogger("cutk").level == before
    ((name, (first,)), (_, (second,))) = heard
    assert (name, first.getMessage(), first.levelno) == (LOG, "1 of <class 'object'>", logging.INFO)
    assert "ValueError" in second.getMessage()


def test_what_was_sent_is_logged_under_its_own_name(caplog):
    record = logging.LogRecord("cutk.a.worker", logging.WARNING, "", 0, "it was a test", None, None)
    record.processName = "there/Process-1"
    relog(record)
    assert [(r.name, r.processName) for r in caplog.records] == [("cutk.a.worker", "there/Process-1")]


def test_the_level_is_whatever_holds_for_cutk(monkeypatch):
    logger = logging.getLogger("cutk")
    monkeypatch.setattr(logger, "level", logging.ERROR)
    assert level() == logging.ERROR


def test_levels_of_cutks_loggers_are_no_change_of_the_process():
    logger = logging.getLogger("cutk")
    before, handler = logger.level, logging.NullHandler()
    try:
        with watched() as changed:
            logger.setLevel("DEBUG")
            logger.addHandler(handler)
            logging.getLogger("cutk.new").setLevel("INFO")
        assert changed == []
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
