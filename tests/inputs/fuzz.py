"""Guided by coverage, hand in whatever comes: ``python fuzz.py CORPUS [options of libFuzzer]``.

What it finds is written to the current folder as ``crash-…``; give that file in place of CORPUS to see it again. The
first byte says which parser is meant.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["cutk", "cutk_builtin", "tomllib", "numpy.lib"], enable_loader_override=False):
    sys.path.insert(0, str(Path(__file__).parent))
    import parsers

NAMES = list(parsers.PARSERS)
FOLDER = tempfile.TemporaryDirectory()


def hand_in(content):
    if content:
        name = NAMES[content[0] % len(NAMES)]
        try:
            parsers.hand_in(name, content[1:], FOLDER.name)
        except Exception:
            print(f"Found by {name}: {content[1:]!r}", file=sys.stderr)
            raise


def main():
    corpus = Path(sys.argv[1])
    if corpus.is_dir():
        for name, seeds in parsers.seeds().items():
            for number, seed in enumerate(seeds):
                (corpus / f"{name}-{number}").write_bytes(bytes([NAMES.index(name)]) + seed)
    atheris.Setup(sys.argv, hand_in)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
