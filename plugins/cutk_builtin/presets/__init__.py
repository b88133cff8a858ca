"""Built-in presets: plans in TOML files beside this one."""

from __future__ import annotations

from pathlib import Path

import cutk


@cutk.hookimpl
def cutk_presets() -> list[Path]:
    """Provide the folder of this module."""
    return [Path(__file__).parent]
