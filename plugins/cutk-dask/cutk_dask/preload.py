"""What a worker of a cluster that a study started does first."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any


def dask_setup(_: Any) -> None:
    """Leave Ctrl-C to the study, and standard output, too: what is printed here is no result."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
