from __future__ import annotations

import cProfile
import subprocess
import sys

import pytest

from cutk import Options, Summary, option
from cutk.plugins.registry import Entry, Provider
from cutk.report.contents import installed_summaries


def test_everything_is_made_when_it_is_asked_for(made, contents_of):
    contents = contents_of(made.everything())
    assert [one.unlearner for one in contents.summaries[0]] == ["cf", "ssd"]
    assert contents.sheets is contents.sheets
    assert len(list(contents.rows())) > 20


def test_tables_need_no_matplotlib():
    modules = ", ".join(f"cutk.report.{name}" for name in ("contents", "terminal", "formats", "verdicts"))
    code = f"import sys, {modules}; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_summary_that_needs_options_is_left_out(registry):
    class Needy(Summary):
        """Needs an option."""

        name = "needy"

        class Options(Options):
            part: float = option(help="a part")

        def summarise(self, curve):
            return None

    class Both:
        def of_kind(self, kind):
            return [*registry.of_kind(kind), Entry("summary", "needy", Needy, Provider("p", "1", "needy"))]

    warnings = []
    assert list(installed_summaries(Both(), warnings.append)) == ["alpha_star"]
    (warning,) = warnings
    assert warning.startswith("summary left out: ")


def test_a_summary_that_fails_is_told(made, contents_of):
    class Broken(Summary):
        """Raises."""

        name = "broken"

        def summarise(self, curve):
            raise ZeroDivisionError("by zero")

    from cutk.report.contents import Contents

    contents = Contents(made.everything(), {"broken": Broken})
    assert {failure.unlearner for failure in contents.failed_summaries} == {"cf", "ssd"}
    assert len(contents.sheets[0]) == 3


@pytest.fixture(scope="module")
def many(made):
    """Some 600 runs of two points each."""
    runs = []
    for manipulation in range(5):
        over = {"manipulation": f"m{manipulation}"}
        for seed in range(4):
            runs += [made.original(seed, 0.2, 0.9, **over), made.gold(seed, 0.9, 0.9, **over)]
            at = [(unlearner, alpha / 5) for unlearner in range(6) for alpha in range(1, 6)]
            runs += [made.run(f"u{u}", alpha, seed, made.grid((0.5, 0.9), (0.3, 0.5)), **over) for u, alpha in at]
    return runs


def test_work_grows_with_the_runs_and_not_faster(many, contents_of):
    """Counted in function calls, which don't depend on the machine."""

    def calls(runs):
        profile = cProfile.Profile()
        profile.enable()
        contents = contents_of(runs)
        _ = contents.sheets, list(contents.rows())
        profile.disable()
        return sum(entry.callcount for entry in profile.getstats())

    assert calls(many) < 13 * calls(many[: len(many) // 10])
