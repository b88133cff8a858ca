"""Shell completion, as a shell asks for it."""

from __future__ import annotations

import sys

import pytest
from click.shell_completion import ShellComplete

from cutk.cli import cli

THIRD = """
import cutk


class Mine(cutk.Unlearner):
    "A method."
    name = "third"

    class Options(cutk.Options):
        depth: int = cutk.option(1, help="depth")

    def unlearn(self, task, state=None):
        return task.original


@cutk.hookimpl
def cutk_unlearners():
    return [Mine]
"""
LOUD = "print('loud')\nimport sys\nsys.stderr.write('louder')\n"


@pytest.fixture
def complete(tmp_path, monkeypatch, capfd):
    """Ask for what may stand in place of the last word, as click's scripts for shells do."""
    monkeypatch.chdir(tmp_path)

    def ask(words):
        *before, incomplete = words.split(" ")[1:]
        found = ShellComplete(cli, {}, "cutk", "_CUTK_COMPLETE").get_completions(before, incomplete)
        assert capfd.readouterr() == ("", "")  # on the line that is being typed nothing else may appear
        return [item.value for item in found]

    return ask


@pytest.fixture
def third_party(tmp_path, monkeypatch):
    """Install distributions whose modules don't say by their place what they provide."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def install(name, source, entry=None):
        folder = site / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[cutk]\n{entry or name} = {name}_module.inner\n")
        package = site / f"{name}_module"
        package.mkdir()
        (package / "__init__.py").write_text("raise RuntimeError('imported for completion')\n")
        (package / "inner.py").write_text(source)
        return package

    yield install
    for module in [name for name in sys.modules if name.partition(".")[0].endswith("_module")]:
        del sys.modules[module]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("cutk bench --unlearner s", ["scrub", "seal", "ssd"]),
        ("cutk bench -u ss", ["ssd"]),
        ("cutk bench -m inter", ["interclass-confusion"]),
        ("cutk bench -m badnet+inter", ["badnet+interclass-confusion"]),
        ("cutk bench -m badnet+badn", []),
        ("cutk bench --dataset cifar", ["cifar10", "cifar100"]),
        ("cutk bench -d cifar100", ["cifar100"]),
        ("cutk bench --model resnet1", ["resnet110"]),
        ("cutk bench --metric alpha", ["alpha_star"]),
        ("cutk bench --metric retain_a", ["retain_accuracy"]),
        ("cutk bench --identification unif", ["uniform"]),
        ("cutk bench --select pap", ["paper"]),
        ("cutk bench --recipe ad", ["adamw"]),
        ("cutk bench --executor pro", ["processes"]),
        ("cutk bench --observer ev", ["events"]),
        ("cutk bench --recipe adamw bet", ["beta1=", "beta2="]),
        ("cutk bench --recipe steps=3 momen", ["momentum="]),
        ("cutk bench --recipe t_mu", ["t_mult="]),
        ("cutk bench -u ssd more", []),
        ("cutk bench --preset laptop/digi", ["laptop/digits"]),
        ("cutk bench -o ssd.selec", ["ssd.selection_weight="]),
        ("cutk bench -o ss", ["ssd.batch_size=", "ssd.dampening=", "ssd.fisher=", "ssd.selection_weight="]),
        ("cutk bench -o ssd.dampening=1", []),
        ("cutk bench -o cifar", ["cifar10.", "cifar100.", "cifarnet."]),
        ("cutk bench -o nobody.", []),
        ("cutk presets show laptop/digi", ["laptop/digits"]),
        ("cutk plugins show badn", ["badnet"]),
        ("cutk plugins check cut", ["cutk"]),
        ("cutk pres", ["presets"]),
        ("cutk bench --ora", ["--oracle"]),
        ("cutk bench --observer tens", ["tensorboard"]),
        ("cutk --log-level d", ["debug"]),
        ("cutk --log-level info bench --log-level ", ["debug", "info", "warning", "error"]),
    ],
)
def test_names_are_completed_by_kind(complete, words, offered):
    found = complete(words)
    # What else ssd can be told is its author's business.
    assert [word for word in found if word in offered] == offered
    if not words.endswith(("-o ss", "pap", "check cut")):
        assert found == offered


def test_no_kind_offers_presets_or_another_kind(complete, registry):
    unlearners = complete("cutk bench -u ")
    for kind in ("dataset", "manipulation", "metric", "recipe", "selector"):
        others = {entry.name for entry in registry.of_kind(kind)} - {e.name for e in registry.of_kind("unlearner")}
        assert not others & set(unlearners)
    assert "presets" not in [*unlearners, *complete("cutk plugins show ")]


def test_a_third_partys_kind_is_read_from_its_text(complete, third_party):
    third_party("third", THIRD)
    assert "third" in complete("cutk bench -u thi")
    assert complete("cutk bench -d thi") == []
    assert "third" in complete("cutk plugins show thi")


def test_a_plugin_whose_kind_cannot_be_told_is_offered_for_each(complete, third_party):
    third_party("thing", "from elsewhere import *\n")
    for option in ("-u", "-d", "--select"):
        assert complete(f"cutk bench {option} thin") == ["thing"]


def test_options_load_one_plugin_which_may_print_and_fail(complete, third_party):
    for name, source, offered in (
        ("good", LOUD + THIRD.replace("third", "good"), ["good.depth="]),
        ("bad", LOUD + "raise SystemExit(3)\n" + THIRD, []),
    ):
        (third_party(name, source) / "__init__.py").write_text("")
        assert complete(f"cutk bench -o {name}.") == offered


def test_a_shell_is_told_of_names_and_files(shell, python, tmp_path):
    for words, printed in (
        ("cutk bench --preset mine.to", "file,mine.to"),
        ("cutk bench -u ss", "plain,ssd"),
    ):
        done = shell(
            *(python, "-c", "from cutk.cli import main; main()"),
            cwd=tmp_path,
            env={"_CUTK_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)},
        )
        assert done.returncode == 0, done.stderr
        assert printed in done.stdout.splitlines()


def test_completion_of_names_loads_neither_torch_nor_a_plugin(shell, python, tmp_path):
    code = (
        "import sys; from cutk.cli.completion import names; found = names('--unlearner')(None, None, 's'); "
        "print(found, sorted(m for m in sys.modules if m.split('.')[0] in ('torch', 'cutk_builtin', 'pydantic')))"
    )
    env = {"CUTK_PLUGINS": ""}
    assert shell(python, "-c", code, cwd=tmp_path, env=env).stdout == "['scrub', 'seal', 'ssd'] []\n"
