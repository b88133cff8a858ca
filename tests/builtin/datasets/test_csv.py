from __future__ import annotations

import pytest
import torch
from PIL import Image

import cutk
from cutk_builtin.datasets.csv_table import CsvTable


@pytest.fixture
def table(tmp_path, noise):
    """Write images and a table of them."""

    def call(rows, heading="path,label", size=8):
        lines = [heading]
        for name, label in rows:
            Image.fromarray(noise(size, size, seed=len(lines))).save(tmp_path / name)
            lines.append(f"{name},{label}")
        (tmp_path / "table.csv").write_text("\n".join(lines) + "\n\n")
        return tmp_path / "table.csv"

    return call


ROWS = [(f"{i}.png", "dog" if i % 3 else "cat") for i in range(9)]


def given(file, **options):
    return CsvTable(CsvTable.Options(file=file, grey=True, **options)).given()


def test_a_table_lists_images_with_their_labels(table, noise):
    found = given(table(ROWS))
    assert found.classes == ("cat", "dog")
    assert found.names == tuple(name for name, _ in ROWS)
    assert found.labels.tolist() == [int(label == "dog") for _, label in ROWS]
    assert torch.equal(found.content[4], torch.from_numpy(noise(8, 8, seed=5))[None])
    assert found.validation is None


def test_a_bench_sets_a_part_aside(table, load):
    splits = load(CsvTable, file=table(ROWS), grey=True)
    assert (len(splits.train), len(splits.test)) == (7, 2)
    assert set(splits.train.names) | set(splits.test.names) == {name for name, _ in ROWS}


def test_numbers_are_classes_in_their_own_order(table):
    found = given(table([(f"{i}.png", str(11 - i)) for i in range(12)]))
    assert found.classes == tuple(map(str, range(12)))
    assert found.labels.tolist() == list(range(11, -1, -1))
    assert given(table([("a.png", "007"), ("b.png", "1")])).classes == ("007", "1")


def test_columns_may_be_called_otherwise(table):
    file = table(ROWS, heading="picture,animal")
    with pytest.raises(cutk.UsageError, match="expected a column of paths, called 'path' or 'file'"):
        given(file)
    assert len(given(file, path="picture", label="Animal")) == 9


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "expected a column of paths"),
        ("path,label\n", "expected a line for each image, got none"),
        ("path,label\na.png\n", "expected the same columns in every line"),
        ("path,label\n0.png,cat\n0.png,dog\n", "expected each image once, got '0.png' twice"),
        ("path,label\n0.png,cat\nnowhere.png,dog\n", "1 of 2 images are not there, 'nowhere.png' for one"),
        ("path,label\n" + "x" * 200_000 + ",a\n", "field larger than field limit"),
    ],
)
def test_what_is_no_table_is_refused(table, tmp_path, content, said):
    table(ROWS[:1])
    (tmp_path / "table.csv").write_text(content)
    with pytest.raises(cutk.UsageError) as error:
        given(tmp_path / "table.csv")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_bench_needs_two_classes(table, message):
    assert "expected at least 2 classes, got 1" in message(CsvTable, file=table([("a.png", "x"), ("b.png", "x")]))
    assert "is not there" in message(CsvTable, file="nowhere.csv")
