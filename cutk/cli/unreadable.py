"""``--skip-unreadable``: images that can't be read, left out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from cutk.cli.messages import warn
from cutk.errors import UsageError

if TYPE_CHECKING:
    import torch

    from cutk.data.given import Given
    from cutk.repair.problem import Tell

__all__ = ["advising", "readable", "skip_option"]

skip_option = click.option("--skip-unreadable", is_flag=True, help="Leave out images that can't be read.")


@contextmanager
def advising(skip: bool) -> Iterator[None]:
    """Name the option in an error about an image that can't be read."""
    from cutk.data.images import DAMAGED

    try:
        yield
    except UsageError as error:
        if DAMAGED in error.message and not skip:
            raise UsageError(f"{error.message} --skip-unreadable leaves such images out.") from None
        raise


def readable(
    given: Given, bad: torch.Tensor, skip: bool, tell: Tell
) -> tuple[Given, torch.Tensor, torch.Tensor | None]:
    """Leave out what can't be read, if that is asked for; return what is left, and where it stood among all."""
    from cutk.repair.sources import readable as readable_of

    if not skip:
        return given, bad, None
    import torch

    kept, which = readable_of(given, lambda done, total: tell("looking for unreadable images", done, total))
    left_out = len(given) - len(kept)
    if not len(kept):
        raise UsageError("--skip-unreadable: none of the images can be read.")
    still = torch.isin(which, bad).nonzero().flatten()
    if len(bad) and not len(still):
        raise UsageError("--bad: none of the bad samples can be read.")
    if left_out:
        among = f", {len(bad) - len(still)} of the bad ones among them" if len(bad) else ""
        warn(f"{left_out} of {len(given)} images can't be read{among}; left out")
    return kept, still, which
