"""The site: what its pages show is what runs, and it builds without a warning."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cutk
import cutk.testing
from cutk.cli import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TOOL = runpy.run_path(str(DOCS / "outputs.py"))
Session, skeleton, steps, take = TOOL["Session"], TOOL["skeleton"], TOOL["steps"], TOOL["take"]
PAGES = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("**/*.md"))}
# The README's output is tested at full size in test_docs.py.
TRANSCRIPTS = [name for name, text in PAGES.items() if any(step["command"] for step in steps(text))]


class InProcess(Session):
    """A session whose plain commands run in this process, which has torch already.

    Once a page has installed something, its commands need processes of their own.
    """

    installed = False

    def run(self, command, *, fails=False):
        self.installed |= command.startswith("pip ")
        if self.installed or not re.fullmatch(r"(cutk|python \w+\.py)\b[^|&<>]*", command):
            return super().run(command, fails=fails)
        program, *arguments = TOOL["shlex"].split(command)
        out, err, code = io.StringIO(), io.StringIO(), None
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.home)
            patch.syspath_prepend(self.home)  # as Python does with a script's folder
            for name in os.environ.keys() - self.environment.keys():
                patch.delenv(name)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    runpy.run_path(arguments[0]) if program == "python" else main(arguments)
                except SystemExit as exited:
                    code = exited.code
                finally:
                    for module in [path.stem for path in self.home.glob("*.py")]:
                        sys.modules.pop(module, None)
        assert (code not in (None, 0)) == fails, f"{command}: {err.getvalue()}"
        return self.shown(out.getvalue() + (err.getvalue() if fails else ""))


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_the_pages_show_what_their_commands_print(name, tmp_path):
    # In "an unlearner in ten minutes" everything is real but two things: pip is told to fetch no dependencies and to
    # use the build backend that is here, and the environment sees the packages of the one that runs the tests.
    session = InProcess(tmp_path)
    for step in steps(PAGES[name]):
        if step["kind"] == "slow output":
            continue
        printed = take(step, session)
        if step["kind"] in ("output", "error"):
            assert skeleton(step["shown"]) == skeleton(printed), f"Run `make outputs`: {step['command']}"


def test_the_tutorial_shows_what_the_readme_shows():
    shown = {
        name: next(step["shown"] for step in steps(text) if step["command"] == "cutk bench --unlearner ssd")
        for name, text in {**PAGES, "README.md": (ROOT / "README.md").read_text(encoding="utf-8")}.items()
        if name in ("README.md", "docs/tutorial.md")
    }
    assert skeleton(shown["README.md"]) == skeleton(shown["docs/tutorial.md"])


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_a_reader_sees_every_command_that_is_run(name):
    typed = {line.removeprefix("$ ") for line in PAGES[name].splitlines() if line.startswith("$ ")}
    assert {step["command"] for step in steps(PAGES[name]) if step["command"]} <= typed


def test_every_command_has_its_help_on_a_page():
    helps = {step["command"] for text in PAGES.values() for step in steps(text) if step["command"]}
    for command in (
        "bench",
        "unlearn",
        "detect",
        "train",
        "evaluate",
        "predict",
        "report",
        "presets",
        "plugins check",
        "plugins new",
    ):
        assert f"cutk {command} --help" in helps


def test_the_skeleton_drops_what_varies_and_nothing_else():
    assert skeleton("ssd  0.803 ±0.1*  12 s\n\ncutk 0.1.0, torch") == skeleton("ssd 0.7  ±0.123   3.4 min")
    assert skeleton("ssd 0.803") != skeleton("scrub 0.803")


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Build the site from a copy that may be changed first."""
    if importlib.util.find_spec("zensical") is None or importlib.util.find_spec("mkdocstrings") is None:
        pytest.skip("needs zensical and mkdocstrings: pip install 'cutk[docs]'")

    def go(**changes: str):
        folder = tmp_path_factory.mktemp("site")
        for name in ("docs", "cutk"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("zensical.toml", "CHANGELOG.md"):
            shutil.copy(ROOT / name, folder)
        for name, text in changes.items():
            with (folder / "docs" / f"{name}.md").open("a", encoding="utf-8") as file:
                file.write(text)
        command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1200, check=False)
        return done.returncode, re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr), folder / "site"

    return go


@pytest.fixture(scope="module")
def site(build):
    code, said, folder = build()
    assert code == 0, said
    return folder


@pytest.mark.parametrize(
    "mistakes",
    [
        {
            "[there](nowhere.md)": "page does not exist",
            "[there](protocol.md#nowhere)": "anchor does not exist",
            "[there][cutk.Nothing]": "unresolved autoref",
        },
        {"::: cutk.Nothing\n": "Could not collect 'cutk.Nothing'"},
        {'--8<-- "nothing.md"\n': "nothing.md"},
    ],
)
def test_a_mistake_fails_the_build(build, mistakes):
    code, printed, _ = build(barrier="\n\n" + "\n\n".join(mistakes) + "\n")
    assert code != 0
    for said in mistakes.values():
        assert said in printed


@pytest.mark.xdist_group("site")
def test_every_page_is_in_the_navigation_and_on_the_site(site):
    navigation = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    for name in PAGES:
        page = name.removeprefix("docs/")
        assert f'"{page}"' in navigation
        assert (site / page).with_suffix(".html").is_file()


PUBLIC = [f"cutk.{name}" for name in cutk.__all__] + [f"cutk.testing.{name}" for name in cutk.testing.__all__]


@pytest.mark.xdist_group("site")
def test_the_reference_has_every_public_name(site):
    anchors = {
        anchor
        for page in (site / "reference").glob("*.html")
        for anchor in re.findall(r'\bid="([^"]+)"', page.read_text(encoding="utf-8"))
    }
    assert sorted(set(PUBLIC) - anchors) == []


@pytest.mark.xdist_group("site")
def test_the_reference_describes_every_public_name(site):
    for page in (site / "reference").glob("*.html"):
        text = page.read_text(encoding="utf-8")
        for name in set(PUBLIC) & set(re.findall(r'<h\d id="([^"]+)"', text)):
            after = text.partition(f'id="{name}"')[2]
            assert "<p>" in after.partition("<h")[0] or "<p>" in after[:8000], name


@pytest.mark.xdist_group("site")
def test_the_site_needs_no_network(site):
    for page in site.glob("**/*.html"):
        text = page.read_text(encoding="utf-8")
        assert re.findall(r'<(?:script|link|img|iframe)\b[^>]*?(?:src|href)="(https?:[^"]+)"', text) == [], page


@pytest.mark.xdist_group("site")
def test_no_tool_is_published(site):
    assert list(site.glob("**/*.py")) == []


def test_docstrings_become_markdown():
    pytest.importorskip("griffe")
    markdown = runpy.run_path(str(DOCS / "docstrings.py"))["markdown"]
    assert markdown("Say so::\n\n    import cutk\n\nAnd on.") == "Say so:\n\n```python\nimport cutk\n```\n\nAnd on."
    assert markdown("So:\n\n>>> 1 + 1\n2\n\nOn.") == "So:\n\n```pycon\n>>> 1 + 1\n2\n```\n\nOn."
    assert markdown("Args:\n    x: a ``name``::other") == "Args:\n    x: a ``name``::other"
