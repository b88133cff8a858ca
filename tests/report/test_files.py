from __future__ import annotations

import os
from pathlib import Path

import pytest

from cutk.errors import UsageError
from cutk.report.files import write_file


def test_a_file_is_written_whole_with_its_folders(tmp_path):
    write_file(tmp_path / "a" / "b.txt", "grün")
    write_file(tmp_path / "a" / "c.bin", b"\0")
    assert (tmp_path / "a" / "b.txt").read_text(encoding="utf-8") == "grün"
    assert (tmp_path / "a" / "c.bin").read_bytes() == b"\0"
    assert sorted(os.listdir(tmp_path / "a")) == ["b.txt", "c.bin"]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match=r"'.*file.below' cannot be written \(.+\)\. Choose another place\."):
        write_file(tmp_path / "file" / "below", "x")
    assert not list(tmp_path.glob(".*tmp"))


@pytest.mark.parametrize("place", ["", ".", "/"])
def test_a_place_without_a_name_cannot_be_written(place):
    with pytest.raises(UsageError, match="cannot be written"):
        write_file(Path(place), "x")


def test_a_folder_that_may_not_be_written(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(UsageError, match="Permission denied"):
        write_file(locked / "page.html", "x")
