"""What `make` says while it installs, and how one goes on from the demo."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def planned(shell, tmp_path):
    """Return what make would run, in an environment that isn't there yet."""

    def ask(*words):
        # What the make that runs these tests was told isn't meant for this one.
        told = ("--dry-run", "--directory", ROOT, f"VENV={tmp_path / 'env'}", "TORCH_INDEX=")
        done = shell("make", *told, *words, cwd=tmp_path, env={"MAKEFLAGS": ""})
        assert done.returncode == 0, done.stderr
        return done.stdout

    return ask


def test_the_demo_says_what_it_installs_and_how_to_go_on(planned, tmp_path):
    steps = planned("demo")
    assert "6 GB on the disk" in steps
    assert "TORCH_INDEX=URL" in steps
    assert "--quiet" not in steps  # several minutes of silence
    assert "index-url" not in steps
    before, _, after = steps.partition("cutk bench --unlearner ssd\n")
    assert "pip install --editable '.'" in before
    assert f". {tmp_path / 'env'}/bin/activate" in after
    assert "cutk bench --unlearner ssd --unlearner rewod" in after


def test_the_build_of_torch_for_cpus_comes_first_if_asked_for(planned):
    for target, extra in (("demo", ""), ("test", "[dev]")):
        before, found, _ = planned(target, "TORCH_INDEX=there/cpu").partition(f"pip install --editable '.{extra}'")
        assert found
        assert "pip install --index-url there/cpu torch torchvision" in before
