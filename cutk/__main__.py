"""``python -m cutk`` is ``cutk``."""

from cutk.cli import main
from cutk.cli.leaving import leave


def run() -> None:
    """Run the command line in a process of its own, and end it."""
    try:
        main()
    except SystemExit as ended:
        if isinstance(ended.code, int):
            leave(ended.code)
        raise


if __name__ == "__main__":
    run()
