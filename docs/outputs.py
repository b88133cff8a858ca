"""Run what the documents show, and put what comes out into them: ``make outputs``.

A page is one session, in a folder of its own and an environment of its own, in the order of the page:

- a fenced block with ``title="FILE"`` is written to FILE, as a reader would;
- ``<!-- run: COMMAND -->`` is run;
- ``<!-- output: COMMAND -->`` is run, and its output stands in the ``text`` block below;
- ``<!-- error: COMMAND -->`` does the same for a command that has to fail;
- ``<!-- slow output: COMMAND -->`` is left out by the tests;
- ``<!-- environment: NAME=VALUE -->`` holds from there on.

``tests/test_site.py`` runs every session and compares, numbers and versions aside.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
# What stands for the session's folder on the page.
SHOWN_FOLDER = "/home/you"
# And what stands for the machine that the outputs were made on, which is no reader's.
MACHINE = re.compile(r"(?<=; cpu )\(.*?\), \w+|(?<=here )\([^\n]*?; measured just now\)")
SHOWN_MACHINE = "(…)"

STEP = re.compile(
    r'^```\w+ title="(?P<file>[^"\n]+)"\n(?P<content>.*?)^```$'
    r"|^<!-- environment: (?P<name>\w+)=(?P<value>\S*) -->$"
    r"|^<!-- (?P<kind>run|output|error|slow output): (?P<command>[^\n]+) -->$(?:\n```text\n(?P<shown>.*?)^```$)?",
    flags=re.MULTILINE | re.DOTALL,
)


def skeleton(text: str) -> list[str]:
    """Drop what differs from machine to machine and run to run: numbers, or that there is none, keys and marks."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("cutk ")]
    variable = r"\([^()]* to [^()]*\)|[*±–]|(?<=─)─+|\b[0-9a-f]{12,64}\b|"
    variable += r"[-+−]?\d+([.,]\d+)*( (s|min|h|days)\b)?|not reached( on this grid)?"
    return [re.sub(r"\s+", " ", re.sub(variable, "", line)).strip() for line in lines]


class Session:
    """A folder and an environment in which commands run as a reader's would.

    The environment is a virtual one that sees whatever this Python sees, cutk included, so that ``pip install`` and
    ``pip uninstall`` change nothing else. pip gets ``--no-deps --no-build-isolation``: it needs no network.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.home = self.folder / "home"
        self.home.mkdir()
        environment = self.folder / "environment"
        venv.EnvBuilder(symlinks=True).create(environment)
        scripts = environment / "bin"
        (packages,) = environment.glob("lib/python*/site-packages")
        seen = [f"import site; site.addsitedir({path!r})\n" for path in sys.path if Path(path).name == "site-packages"]
        (packages / "outer.pth").write_text("".join(seen))
        for command, arguments in {
            "cutk": '-m cutk "$@"',
            "pip": '-m pip --quiet --disable-pip-version-check "$@"',
            "pytest": '-m pytest -p no:cacheprovider "$@"',
        }.items():
            script = scripts / command
            script.write_text(f'#!/bin/sh\nexec "{scripts}/python" {arguments}\n')
            script.chmod(0o755)
        unset = ("CUTK_PLUGIN_PATH", "CUTK_DISABLE", "CUTK_STRICT", "CUTK_RUNS", "PYTHONPATH")
        self.environment = {name: value for name, value in os.environ.items() if name not in unset} | {
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.home),
            "CUTK_PLUGINS": "",
            "COLUMNS": "100",
            "NO_COLOR": "1",
            "LC_ALL": "C.UTF-8",
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads the negation of what it is called
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def write(self, name: str, content: str) -> None:
        """Write a file, as the page's reader does."""
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")

    def run(self, command: str, *, fails: bool = False) -> str:
        """Run a command line and return what it printed: results, and where it ``fails`` its words, too.

        Raises:
            RuntimeError: if it fails where it shouldn't, or the other way round, or with a traceback.
        """
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=3600,
            check=False,
        )
        if (done.returncode != 0) != fails or "Traceback" in done.stderr:
            raise RuntimeError(f"`{command}` exited with {done.returncode}:\n{done.stdout}{done.stderr}")
        return self.shown(done.stdout + (done.stderr if fails else ""))

    def shown(self, printed: str) -> str:
        """Return what was printed as the page shows it."""
        printed = MACHINE.sub(SHOWN_MACHINE, printed.replace(str(self.home), SHOWN_FOLDER))
        lines = [line.rstrip() for line in printed.splitlines()]
        return "\n".join(lines).strip("\n") + "\n"


def steps(text: str) -> Iterator[re.Match[str]]:
    """Yield what a page has to write and to run, in order."""
    return STEP.finditer(text)


def take(step: re.Match[str], session: Session) -> str | None:
    """Take one step and return what its command printed, if it is a command."""
    if step["file"]:
        session.write(step["file"], step["content"])
    elif step["name"]:
        session.environment[step["name"]] = step["value"]
    else:
        return session.run(step["command"], fails=step["kind"] == "error")
    return None


def regenerate(page: Path) -> None:
    """Run a page's session, and rewrite its output blocks."""
    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Path(folder))

        def replaced(step: re.Match[str]) -> str:
            printed = take(step, session)
            if step["kind"] in (None, "run") or printed is None:
                return step[0]
            return f"<!-- {step['kind']}: {step['command']} -->\n```text\n{printed}```"

        new = STEP.sub(replaced, text)
    if new != text:
        page.write_text(new, encoding="utf-8")


def main() -> None:
    """Regenerate the pages named on the command line, or all of them."""
    for page in [Path(name).resolve() for name in sys.argv[1:]] or PAGES:
        if any(step["command"] for step in steps(page.read_text(encoding="utf-8"))):
            print(shlex.quote(str(page.relative_to(ROOT))), flush=True)
            regenerate(page)


if __name__ == "__main__":
    main()
