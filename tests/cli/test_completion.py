"""Shell completion, as a shell asks for it, and what ``--version`` says."""

from __future__ import annotations

import pytest

import cutk


def completed(shell, python, cwd, words):
    """Ask as bash does: the words so far, and which of them is being written."""
    done = shell(
        *(python, "-c", "from cutk.cli import main; main()"),
        cwd=cwd,
        env={"_CUTK_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)},
    )
    assert done.returncode == 0, done.stderr
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("cutk bench --unlearner s", ["scrub", "ssd"]),
        ("cutk bench -m inter", ["interclass-confusion"]),
        ("cutk bench --dataset cifar", ["cifar10", "cifar100"]),
        ("cutk bench --model resnet1", ["resnet110"]),
        ("cutk bench --metric alpha", ["alpha_star"]),
        ("cutk plugins show badn", ["badnet"]),
        ("cutk pres", ["presets"]),
        ("cutk bench --ora", ["--oracle"]),
    ],
)
def test_names_are_completed(shell, python, tmp_path, words, offered):
    assert completed(shell, python, tmp_path, words) == offered


def test_completion_loads_neither_torch_nor_a_plugin(shell, python, tmp_path):
    code = (
        "import sys; from cutk.cli.common import complete; found = complete('unlearner')(None, None, 's'); "
        "print(found, sorted(m for m in sys.modules if m.split('.')[0] in ('torch', 'cutk_builtin')))"
    )
    assert shell(python, "-c", code, cwd=tmp_path).stdout == "['scrub', 'ssd'] []\n"


def test_the_version_names_who_provides_plugins(run, monkeypatch, tmp_path):
    folder = tmp_path / "third_party-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[cutk]\nmine = third_party.mine\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    lines = run("--version").out.splitlines()
    assert lines[0].startswith(f"cutk {cutk.__version__} (plugin API {cutk.API_VERSION}, torch ")
    assert "third-party 1.0" in lines
