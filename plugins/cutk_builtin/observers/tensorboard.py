"""What happens in a study as TensorBoard shows it."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cutk


def imported() -> Any:
    """Return PyTorch's writer of event files: imported where it is needed, since TensorBoard may be missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise cutk.UsageError(
            "The observer 'tensorboard' needs TensorBoard. Install it: pip install 'cutk[tensorboard]'"
        ) from None
    return SummaryWriter


def _text(text: str) -> str:
    """Return what event files can hold: halves of characters they can't."""
    return text.encode("utf-8", "replace").decode()


def _verbatim(text: str) -> str:
    """Return Markdown that shows a text as it is."""
    return "".join(f"    {line}\n" for line in _text(text).splitlines())


def _plain(settings: dict[str, Any]) -> dict[str, bool | int | float | str]:
    """Return what the table of hyperparameters can hold."""
    return {n: v if isinstance(v, bool | int | float | str) else json.dumps(v) for n, v in settings.items()}


def _named(cell: Any) -> str:
    """Return a cell's name as that of a folder."""
    about = cell.labels
    parts = [about["manipulation"], f"seed{about['seed']}", about.get("unlearner", about["role"])]
    parts += [f"alpha{about['alpha']}"] if "alpha" in about else []
    return re.sub(r"[^\w.+-]", "-", "_".join(parts))


def _failure() -> Any:
    """Return what ends a run as one that failed: PyTorch's own function knows success alone."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_FAILURE)
    about = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=end))
    value = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=about, tensor=metadata.NULL_TENSOR)
    return Summary(value=[value])


class TensorBoard(cutk.Observer):
    """Writes curves, results and warnings for TensorBoard, each cell as a run.

    A study has a folder of its own, named by the time, and each cell one in it. ``live/NAME`` is what a method logs
    as it does, the points of a grid one after the other; of the point that was chosen, ``curves/NAME`` is what was
    logged on the way to it, and what was measured of it stands under ``metrics`` and beside its options in the table
    of hyperparameters. Warnings are texts of the study, and the reason of a cell that failed is one of that cell.
    """

    name = "tensorboard"
    reference = "https://www.tensorflow.org/tensorboard"

    class Options(cutk.Options):
        """Where."""

        folder: str = cutk.option("tensorboard", help="folder in which each study gets its own")

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self._folder = Path()
        self._under_way = False
        self._writers: dict[Any, Any] = {}  # by cell; by None, the study's own
        self._logged: dict[Any, Counter[str]] = {}  # how many values of each curve
        self._taken: set[str] = set()
        self._unsaid: list[str] = []  # warnings that came before there was a folder
        self._said = 0

    def ready(self) -> None:
        """Refuse to begin without TensorBoard."""
        imported()

    def started(self, cells: int) -> None:
        """Make the study's folder."""
        self._folder, self._under_way, self._said = self._new_folder(), True, 0
        self._taken.clear()
        for text in self._unsaid:
            self._say(text)

    def _new_folder(self) -> Path:
        root = Path(self.options.folder).expanduser().absolute()
        root.mkdir(parents=True, exist_ok=True)
        now, number = time.strftime("%Y-%m-%d_%H-%M-%S"), 0
        while True:
            folder = root / (f"{now}_{number}" if number else now)
            try:
                folder.mkdir()
            except FileExistsError:
                number += 1
            else:
                return folder

    def _writer(self, cell: Any) -> Any:
        if cell not in self._writers:
            name = "" if cell is None else _named(cell)
            while name in self._taken:  # two names may differ in what no folder's name can hold
                name += "_"
            self._taken |= {name} if name else set()
            self._writers[cell] = imported()(str(self._folder / name), flush_secs=10)
            self._logged[cell] = Counter()
        return self._writers[cell]

    def _close(self, cell: Any) -> None:
        self._writers.pop(cell).close()
        del self._logged[cell]

    def cell_started(self, cell: Any) -> None:
        """Begin its run."""
        self._writer(cell)

    def scalar(self, cell: Any, name: str, step: int, value: float) -> None:
        """Write it behind what was logged under this name before."""
        writer, logged = self._writer(cell), self._logged[cell]
        writer.add_scalar(f"live/{_text(name)}", value, logged[name])
        logged[name] += 1

    def cell_finished(self, cell: Any, run: Any, read: bool) -> None:
        """Write what came of it."""
        writer, record = self._writer(cell), run.record
        for name, values in run.curves.items():
            for step, value in enumerate(values):
                if value is not None:
                    writer.add_scalar(f"curves/{_text(name)}", value, step)
        metrics = {f"metrics/{_text(name)}": value for name, value in record.metrics.items()}
        for name, several in record.breakdowns.items():
            for label, value in several.items():
                writer.add_scalar(f"{_text(name)}/{_text(label)}", value, 0)
        writer.add_hparams(_plain(run.parameters), metrics, run_name=".", global_step=0)
        self._close(cell)

    def cell_failed(self, cell: Any, reason: str) -> None:
        """Write why, and mark it as failed in the table of hyperparameters."""
        from torch.utils.tensorboard.summary import hparams

        writer = self._writer(cell)
        writer.add_text("failed", _verbatim(reason), 0)
        for summary in (*hparams(_plain(cell.labels), {})[:2], _failure()):
            writer.file_writer.add_summary(summary)
        self._close(cell)

    def warning(self, text: str) -> None:
        """Write it as the study's."""
        if self._folder == Path():
            self._unsaid.append(text)
        else:
            self._say(text)

    def _say(self, text: str) -> None:
        self._writer(None).add_text("warnings", _verbatim(text), self._said)
        self._said += 1
        if not self._under_way:  # what is said of the results is said when the study is over
            self._close(None)

    def finished(self) -> None:
        """Close what is open."""
        self._under_way = False
        for cell in list(self._writers):
            self._close(cell)


@cutk.hookimpl
def cutk_observers() -> list[type[cutk.Observer]]:
    """Provide ``tensorboard``."""
    return [TensorBoard]
