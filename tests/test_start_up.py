"""What happens before anything is asked for: nothing heavy."""

from __future__ import annotations

import cutk

HEAVY = ("torch", "torchvision", "numpy", "cutk_builtin", "pydantic", "safetensors")


def loaded_after(shell, python, tmp_path, code):
    script = f"{code}\nimport sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = shell(python, "-c", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_importing_cutk_imports_nothing_heavy(shell, python, tmp_path):
    assert loaded_after(shell, python, tmp_path, "import cutk") == "[]"


def test_help_and_version_import_nothing_heavy(shell, python, tmp_path):
    for flag in ("--help", "--version"):
        code = f"from cutk.cli import main\ntry: main(['{flag}'])\nexcept SystemExit as e: assert not e.code"
        assert loaded_after(shell, python, tmp_path, code) == "[]"


def test_help_of_a_command_loads_no_plugin(shell, python, tmp_path):
    code = "from cutk.cli import main\ntry: main(['bench', '--help'])\nexcept SystemExit as e: assert not e.code"
    assert loaded_after(shell, python, tmp_path, code) == "[]"


def test_every_public_name_is_there():
    assert all(hasattr(cutk, name) for name in cutk.__all__)
    assert set(cutk.__all__) <= set(dir(cutk))


def test_kinds_can_be_read_without_anything_heavy(shell, python, tmp_path):
    assert loaded_after(shell, python, tmp_path, "from cutk.kinds import KINDS; import cutk.plugins.discovery") == "[]"
