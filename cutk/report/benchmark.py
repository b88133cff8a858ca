"""What ``cutk.bench`` returns."""

from __future__ import annotations

import json
import shutil
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutk.errors import CutkError
from cutk.report.contents import Contents
from cutk.run.study import Results, Study

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Report", "contents_of"]

Json = dict[str, Any]


def contents_of(study: Study, results: Results) -> Contents:
    """Return what a report shows of a study: its metrics, in the order of its plan, and its summaries."""
    setup = study.setup
    names: dict[str, str] = {}
    for composed in setup.manipulations:
        names |= study.names(composed.name)
    return Contents(
        results.runs,
        {summary.name: summary.make for summary in setup.summaries},
        metrics=names,
        oracle=setup.plan.oracle,
        failures=[failure for failure in results.failures if failure.what == "cell"],
    )


class Report:
    """What a benchmark found; notebooks show it as tables and a figure.

    Attributes:
        plan: as it was run, with every option settled.
        environment: versions, device, precision and threads.
        records: one for each model. Its ``role`` is ``original``, ``gold`` or ``unlearned``; the first two have neither
            an unlearner nor an α.
        failures: one for each cell, grid point, metric or summary that gave no number, with its ``reason``.
        summaries: over α, such as α*, for each manipulation and unlearner.
    """

    def __init__(self, results: Results, contents: Contents, runs: Path, *, passing: bool = False) -> None:
        self._document = results.document()
        self.plan: Json = self._document["plan"]
        self.environment: Json = self._document["environment"]
        self.records: list[Json] = self._document["records"]
        self.failures: list[Json] = self._document["failures"]
        self.summaries: list[Json] = self._document["summaries"]
        self._contents, self._runs = contents, runs
        # A passing folder goes when the report does.
        self._removal = weakref.finalize(self, shutil.rmtree, runs, ignore_errors=True) if passing else None

    def document(self) -> Json:
        """Return everything as one document: what ``cutk bench --json`` prints."""
        return self._document

    def to_pandas(self) -> pd.DataFrame:
        """Return one row for each record: its labels, its metrics by name, and its options as JSON.

        Raises:
            CutkError: if pandas isn't installed; the message says where the results are.
        """
        try:
            import pandas as pd
        except ImportError:
            raise CutkError(
                "A data frame needs pandas: pip install 'cutk[pandas]'. Nothing is lost: the same "
                f"cutk.bench(…, runs='{self.keep()}') reads what was computed."
            ) from None
        rows = []
        for record in self.records:
            labels = {name: value for name, value in record.items() if name not in ("metrics", "breakdowns")}
            rows.append({**labels, "options": json.dumps(record["options"]), **record["metrics"]})
        return pd.DataFrame(rows)

    def keep(self) -> Path:
        """Return the folder that holds the runs, which stays from now on even if it was to go with this report."""
        if self._removal is not None:
            self._removal.detach()
        return self._runs

    def html(self) -> str:
        """Return the page that ``cutk report --html`` writes."""
        from cutk.report.page import page

        return page(self._contents)

    def _repr_html_(self) -> str:
        from cutk.report.page import excerpt

        return excerpt(self._contents)

    def __repr__(self) -> str:
        models, failed = len(self.records), len(self.failures)
        return f"<cutk.Report: {models} records" + (f", {failed} failures>" if failed else ">")
