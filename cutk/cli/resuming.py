"""Ctrl-C in ``cutk unlearn``: what is finished stays, and the same command goes on from there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cutk.cli.messages import say, warn
from cutk.errors import UsageError

if TYPE_CHECKING:
    from cutk.repair.keeping import Kept
    from cutk.repair.problem import Methods, Problem

__all__ = ["kept_beside", "take_up"]


@contextmanager
def kept_beside(out: Path) -> Iterator[Kept]:
    """Yield what keeps finished candidates beside a repair's folder until it is written; say so on Ctrl-C."""
    from cutk.repair.keeping import Kept

    kept = Kept(out.with_name(f"{out.name}-unfinished"), warn)
    try:
        yield kept
    except KeyboardInterrupt:
        if count := kept.count():
            there = f"{count} finished candidate{' is' if count == 1 else 's are'} in '{kept.folder}'"
            say(f"Interrupted. {there}; the same command goes on from there.")
        else:
            say("Interrupted. No method was finished, so nothing is kept.")
        raise click.exceptions.Abort from None
    except UsageError as error:
        if kept.count():  # the folder couldn't be written
            raise UsageError(
                f"{error} What is finished is in '{kept.folder}': the same command, with --resume or without, goes on "
                "from it."
            ) from None
        raise
    kept.drop()


def take_up(kept: Kept, problem: Problem, methods: Methods, resume: bool) -> Methods:
    """Say which methods' candidates are there already, and return what is left; refuse to ``resume`` where none is."""
    there = kept.opened(problem, methods)
    if there:
        say(f"Going on from '{kept.folder}': {', '.join(there)} {'is' if len(there) == 1 else 'are'} there.")
    elif resume:
        raise UsageError(
            f"--resume: nothing is finished of this repair in '{kept.folder}'. Model, data, list and options have to "
            "be the same. Leave --resume out to begin."
        )
    return replace(methods, unlearners=tuple(one for one in methods.unlearners if one.name not in there))
