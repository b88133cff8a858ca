"""``python -m cutk`` is ``cutk``."""

from cutk.cli import main

main()
