"""What happens in a study as runs of MLflow."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cutk

# Values of curves are sent when there are so many of a cell, or the oldest has waited for so many seconds: a database
# takes longer to be written to than many a step of a method.
MANY, LONG = 500, 5.0
# What MLflow takes in a request, and how long a parameter, a note and a metric's name may be.
PARAMETERS, PARAMETER, NOTE, NAME = 100, 6000, 5000, 250
_DATABASE = re.compile(r"(sqlite|mysql|postgresql|mssql)(\+\w+)?:")
_FILE = "sqlite:///"
# Seconds in which a server has to answer.
PATIENCE = 10.0


def imported() -> Any:
    """Return the package mlflow: imported where it is needed, since it is large and may be missing."""
    try:
        import mlflow
    except ImportError:
        raise _missing() from None
    return mlflow


def _missing() -> cutk.UsageError:
    return cutk.UsageError("The observer 'mlflow' needs MLflow. Install it: pip install 'cutk[mlflow]'")


def _key(name: str) -> str:
    """Return a name that MLflow takes for a metric or a parameter: it is a path, of some characters alone."""
    parts = re.sub(r"[^\w. :/-]", "_", name).split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))[:NAME]


def _text(value: Any, longest: int) -> str:
    """Return a value as a text that MLflow takes."""
    text = str(value).encode("utf-8", "replace").decode()
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _check_answers(uri: str) -> None:
    """Refuse a server that nobody answers for: MLflow itself would try again for minutes."""
    import requests  # which comes with MLflow

    try:
        requests.get(uri, timeout=PATIENCE)
    except requests.exceptions.SSLError:
        pass  # it does answer, and MLflow may be told to trust it
    except requests.exceptions.RequestException as error:
        raise cutk.UsageError(
            f"MLflow's server '{uri}' doesn't answer ({type(error).__name__}). Start it, or give another with "
            "-o mlflow.uri=URI."
        ) from None


@dataclass
class Open:
    """A cell's run that is under way: its id, how many values of each curve came, and those that weren't sent yet."""

    run: str
    counts: Counter[str] = field(default_factory=Counter)
    waiting: list[Any] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)


class Mlflow(cutk.Observer):
    """Writes options, curves and results to MLflow, each cell as a run.

    The study is a run, too, and its cells are nested in it. ``live/NAME`` is what a method logs as it does, the points
    of a grid one after the other; of the point that was chosen, ``curves/NAME`` is what was logged on the way to it,
    its options are parameters, and what was measured of it metrics. Warnings are in the study's description, and the
    reason of a cell that failed is in its own.
    """

    name = "mlflow"
    reference = "https://mlflow.org"

    class Options(cutk.Options):
        """Where."""

        uri: str = cutk.option(
            "",
            help="where runs are kept, such as sqlite:///mlflow.db or http://localhost:5000; if not given, where "
            "MLFLOW_TRACKING_URI or else MLflow's default says",
        )
        experiment: str = cutk.option("cutk", help="the experiment that they belong to, made if it isn't there")

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self._client: Any = None
        self._experiment = self._study = ""
        self._cells: dict[Any, Open] = {}
        self._warnings: list[str] = []
        self._failed = self._left = 0

    def _uri(self) -> str:
        """Return where runs are kept, the same wherever the working folder is changed to."""
        uri = str(self.options.uri or imported().get_tracking_uri())
        if uri.startswith(_FILE):
            uri = _FILE + str(Path(uri.removeprefix(_FILE)).expanduser().absolute())
        return uri

    def ready(self) -> None:
        """Refuse to begin without MLflow, or where it can't keep runs."""
        mlflow, uri = imported(), self._uri()
        if _DATABASE.match(uri):  # which is made when it is opened first: not before the study begins
            if not all(importlib.util.find_spec(name) for name in ("sqlalchemy", "alembic")):
                raise _missing()
            return
        if uri.startswith(("http://", "https://")):
            _check_answers(uri)
        try:
            mlflow.MlflowClient(tracking_uri=uri)
        except mlflow.MlflowException as error:
            raise cutk.UsageError(f"MLflow can't keep runs in '{uri}': {error}") from None

    def started(self, cells: int) -> None:
        """Begin the study's run."""
        mlflow = imported()
        self._client = mlflow.MlflowClient(tracking_uri=self._uri())
        name = self.options.experiment
        try:
            self._experiment = self._client.create_experiment(name)
        except mlflow.MlflowException:
            there = self._client.get_experiment_by_name(name)
            if there is None:
                raise
            self._experiment = there.experiment_id
        self._cells, self._failed, self._left = {}, 0, cells
        self._study = self._begin(f"cutk, {time.strftime('%Y-%m-%d %H:%M:%S')}", cells=str(cells))
        if self._warnings:  # that came before the study began
            self._note(self._study, "\n".join(self._warnings))

    def _begin(self, name: str, **tags: str) -> str:
        return str(self._client.create_run(self._experiment, tags=tags, run_name=name).info.run_id)

    def _cell(self, cell: Any) -> Open:
        if cell not in self._cells:
            name, parent = _text(cell, PARAMETER), {"mlflow.parentRunId": self._study}
            self._cells[cell] = Open(self._begin(name, **parent))
        return self._cells[cell]

    def _metric(self, name: str, value: float, step: int = 0) -> Any:
        return imported().entities.Metric(_key(name), value, int(1000 * time.time()), step)

    def _send(self, mine: Open) -> None:
        """Send the values that wait."""
        for first in range(0, len(mine.waiting), MANY):
            self._client.log_batch(mine.run, metrics=mine.waiting[first : first + MANY])
        mine.waiting.clear()

    def _note(self, run: str, text: str) -> None:
        """Describe a run, in Markdown that shows the text as it is."""
        self._client.set_tag(run, "mlflow.note.content", _text("".join(f"    {x}\n" for x in text.splitlines()), NOTE))

    def _settle(self, mine: Open, settings: dict[str, Any]) -> None:
        param = imported().entities.Param
        told = [param(_key(name), _text(value, PARAMETER)) for name, value in settings.items()]
        for first in range(0, len(told), PARAMETERS):
            self._client.log_batch(mine.run, params=told[first : first + PARAMETERS])

    def _end(self, cell: Any, status: str) -> None:
        # MLflow prints the address of each run that ends; the study's will do.
        with contextlib.redirect_stdout(io.StringIO()):
            self._client.set_terminated(self._cells.pop(cell).run, status)
        self._left -= 1

    def cell_started(self, cell: Any) -> None:
        """Begin its run."""
        self._cell(cell)

    def scalar(self, cell: Any, name: str, step: int, value: float) -> None:
        """Add it to what was logged under this name before."""
        mine = self._cell(cell)
        if not mine.waiting:
            mine.since = time.monotonic()
        mine.waiting.append(self._metric(f"live/{name}", value, mine.counts[name]))
        mine.counts[name] += 1
        if len(mine.waiting) >= MANY or time.monotonic() - mine.since > LONG:
            self._send(mine)

    def cell_finished(self, cell: Any, run: Any, read: bool) -> None:
        """Write what came of it."""
        mine, record = self._cell(cell), run.record
        mine.waiting += [
            self._metric(f"curves/{name}", value, step)
            for name, values in run.curves.items()
            for step, value in enumerate(values)
            if value is not None
        ]
        mine.waiting += [self._metric(name, value) for name, value in record.metrics.items()]
        for name, several in record.breakdowns.items():
            mine.waiting += [self._metric(f"{name}/{label}", value) for label, value in several.items()]
        self._send(mine)
        self._settle(mine, run.parameters)
        self._client.set_tag(mine.run, "cutk.key", run.key)
        self._end(cell, "FINISHED")

    def cell_failed(self, cell: Any, reason: str) -> None:
        """Mark it as failed."""
        mine = self._cell(cell)
        self._send(mine)
        self._settle(mine, cell.labels)
        self._note(mine.run, reason)
        self._failed += 1
        self._end(cell, "FAILED")

    def warning(self, text: str) -> None:
        """Add it to the study's description."""
        self._warnings.append(text)
        if self._study:
            self._note(self._study, "\n".join(self._warnings))

    def finished(self) -> None:
        """End the study's run, and those of cells that were given up."""
        interrupted = self._left > 0
        for cell in list(self._cells):
            self._send(self._cells[cell])
            self._end(cell, "KILLED")
        status = "KILLED" if interrupted else "FAILED" if self._failed else "FINISHED"
        self._client.set_terminated(self._study, status)


@cutk.hookimpl
def cutk_observers() -> list[type[cutk.Observer]]:
    """Provide ``mlflow``."""
    return [Mlflow]
