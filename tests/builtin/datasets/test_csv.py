from __future__ import annotations

import code
import csv

import pytest
import torch
from PIL import Image

import cutk
from cutk_builtin.datasets.arrays import Arrays
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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_it_is_read_as_spreadsheets_write_it(table, separator, encoding):
    # Two columns more, one of which holds what separates others' columns.
    rows = [(name, label, 'a "b", c; d', "é") for name, label in ROWS]
    file = table(ROWS)
    with file.open("w", encoding=encoding, newline="") as opened:
        csv.writer(opened, delimiter=separator).writerows([("path", "label", "remark", "by"), *rows, (), ("",) * 4])
    assert given(file).names == tuple(name for name, _ in ROWS)
    assert given(file).labels.tolist() == [int(label == "dog") for _, label in ROWS]


def test_a_row_that_lacks_columns_leaves_the_separator_alone(table):
    file = table(ROWS)
    file.write_text(
        "path;label;by\n" + "".join(f"{name};{label}{';x' * (i % 2)}\n" for i, (name, label) in enumerate(ROWS))
    )
    assert given(file).names == tuple(name for name, _ in ROWS)


def test_what_is_no_unicode_is_told_apart(table):
    file = table([("a.png", "x"), ("b.png", "y")])
    file.write_bytes("path;label\na.png;Käse\nb.png;y\n".encode("latin-1"))
    with pytest.raises(
        cutk.UsageError, match=r"expected text in UTF-8 or UTF-16, got the label 'K\\udce4se'. Save it as UTF-8"
    ):
        given(file)


@pytest.mark.parametrize("label", ["Class", "kind"])
@pytest.mark.parametrize("separator", [",", ";"])
def test_a_table_of_features_is_sent_to_arrays(tmp_path, monkeypatch, separator, label):
    monkeypatch.chdir(tmp_path)
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    labels = (
        ["10" if i % 4 else "9" for i in range(40)]
        if label == "Class"
        else ["bad" if i % 4 else "good" for i in range(40)]
    )
    with open("fraud's.csv", "w", newline="") as opened:
        writer = csv.writer(opened, delimiter=separator)
        writer.writerow(["amount", label, "hour", "age"])
        writer.writerows(
            [float(a), given_as, float(b), float(c)] for (a, b, c), given_as in zip(x, labels, strict=True)
        )
    with pytest.raises(
        cutk.UsageError, match=r"expected a column of paths.* arrays:FILE.* These lines of Python"
    ) as error:
        CsvTable(CsvTable.Options(file="fraud's.csv", label=label)).given()
    console = code.InteractiveConsole()
    assert not any(map(console.push, error.value.to_paste))  # no line waits for another
    found = Arrays(Arrays.Options(file="fraud's.npz")).given()
    assert found.classes == (("9", "10") if label == "Class" else ("bad", "good"))
    assert [found.classes[i] for i in found.labels] == labels
    assert torch.allclose(found.content.x, x, atol=1e-6)


def test_features_that_are_texts_in_part_have_to_become_numbers(tmp_path):
    file = tmp_path / "table.csv"
    file.write_text("amount,label,shop\n" + "1.5,0,grocer\n" * 9)
    with pytest.raises(cutk.UsageError, match=r"arrays:FILE.* Make numbers of what is text") as error:
        CsvTable(CsvTable.Options(file=file)).given()
    assert not error.value.to_paste


def test_names_may_have_points(table):
    for labels in (("3.0", "3.5"), ("v1.0", "v2.0"), ("a.0", "1")):
        assert given(table([(f"{i}.png", label) for i, label in enumerate(labels)])).classes == tuple(sorted(labels))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "expected a column of paths"),
        ("path,label\n", "expected a line for each image, got none"),
        ("path,label\na.png\n", "expected the same columns in every line"),
        ("path,label\n0.png,cat\n0.png,dog\n", "expected each image once, got '0.png' twice"),
        ("path,label\n0.png,cat\n1.png,\n", "expected a label in every line, got none for '1.png'"),
        ("path,label\n0.png,0.0\n1.png,10.0\n", "expected labels that are names or whole numbers, got '0.0'"),
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
