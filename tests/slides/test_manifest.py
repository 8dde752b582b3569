"""`manifest.csv`: any row survives, a torn file loses one row at most, and other programs read it."""

import csv
import dataclasses
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restain.errors import OutputError
from restain.slides.manifest import COLUMNS, NAME, Manifest, Row, key, read_rows

DONE = Row(
    Path('/cohort/a b,"c".svs'),
    "deep/a.tif",
    "done",
    "macenko",
    "0123456789abcdef",
    12.3456,
    40_000,
    30_000,
    "ab" * 32,
    "cd" * 32,
    {"white_point": [240.1, 239.0, 238.0], "fallback": ""},
    ("a note", "another, with a comma"),
)
FAILED = Row(Path("/cohort/b.svs"), "b.tif", "failed", "macenko", error="b.svs is empty\n(0 bytes)")


def write(folder: Path, *rows: Row) -> Path:
    with Manifest(folder) as manifest:
        for row in rows:
            manifest.add(row)
    return folder / NAME


def test_what_was_added_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, FAILED, DONE)
    read = list(read_rows(path))
    # In the order of the outputs, errors in one line, seconds to a thousandth.
    assert read == [
        dataclasses.replace(FAILED, error="b.svs is empty (0 bytes)"),
        dataclasses.replace(DONE, seconds=12.346),
    ]
    assert Manifest(tmp_path).rows == {row.output: row for row in read}


def test_other_programs_read_it(tmp_path: Path) -> None:
    with write(tmp_path, DONE, FAILED).open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["input"] for row in rows] == [str(FAILED.input), str(DONE.input)]
    assert list(rows[0]) == list(COLUMNS)
    assert rows[0]["error"] == "b.svs is empty (0 bytes)"
    assert rows[1]["warnings"] == "a note | another, with a comma"


def test_the_last_row_of_an_output_counts(tmp_path: Path) -> None:
    started = Row(DONE.input, DONE.output, "started")
    with Manifest(tmp_path) as manifest:
        manifest.add(started, sync=False)
        assert [row.status for row in read_rows(tmp_path / NAME)] == ["started"]
        manifest.add(DONE)
        assert [row.status for row in read_rows(tmp_path / NAME)] == ["started", "done"]
        assert Manifest(tmp_path).rows[DONE.output].status == "done"
    assert [row.status for row in read_rows(tmp_path / NAME)] == ["done"]


def test_each_row_is_there_before_the_next(tmp_path: Path) -> None:
    """Without `close`, as after a kill."""
    manifest = Manifest(tmp_path)
    for number in range(5):
        manifest.add(dataclasses.replace(DONE, output=f"{number}.tif"))
        assert len(list(read_rows(tmp_path / NAME))) == number + 1


def test_a_torn_file_loses_one_row_at_most(tmp_path: Path) -> None:
    rows = [dataclasses.replace(DONE, output=f"{number}.tif", seconds=1.0) for number in range(3)]
    whole = write(tmp_path, *rows).read_bytes()
    lines = whole.splitlines(keepends=True)
    head = len(lines[0])
    for end in range(head, len(whole) + 1):
        (tmp_path / NAME).write_bytes(whole[:end])
        complete = sum(end >= head + sum(map(len, lines[1 : 2 + number])) for number in range(3))
        assert list(read_rows(tmp_path / NAME)) == rows[:complete], end
    # And it goes on from there.
    (tmp_path / NAME).write_bytes(whole[:-20])
    with Manifest(tmp_path) as manifest:
        manifest.add(rows[2])
    assert (tmp_path / NAME).read_bytes() == whole


def test_zeros_at_the_end_are_a_torn_line_too(tmp_path: Path) -> None:
    path = write(tmp_path, DONE)
    with path.open("ab") as stream:
        stream.write(b"\0" * 4096)
    assert [row.output for row in read_rows(path)] == [DONE.output]


@pytest.mark.parametrize("text", ["", "name,size\na,1\n", "restain", "\xff\xfe"])
def test_a_file_that_is_no_manifest_is_not_touched(text: str, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(text, encoding="utf-8")
    with pytest.raises(OutputError, match=r"manifest\.csv is no manifest.*move it"):
        Manifest(tmp_path)
    assert (tmp_path / NAME).read_text(encoding="utf-8") == text


def test_a_damaged_row_is_a_slide_that_is_done_again(tmp_path: Path) -> None:
    path = write(tmp_path, DONE, FAILED)
    for wrong, right in (("done", "dome"), ("12.346", "12,346"), ("40000", "many"), ('""white_point""', '""white')):
        path.write_text(path.read_text().replace(wrong, right, 1))
        assert [row.output for row in read_rows(path)] == ["b.tif"]
        write(tmp_path, DONE)


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(OutputError, match=r"cannot read .*manifest\.csv"):
        Manifest(tmp_path)


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Manifest(tmp_path)
    manifest.add(DONE)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("restain.slides.manifest.os.fsync", full)
    with pytest.raises(OutputError, match=r"cannot write .*manifest\.csv: No space left"):
        manifest.add(FAILED)


NAMES = st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=40)


@given(name=NAMES, error=NAMES, warning=NAMES)
def test_any_name_survives(name: str, error: str, warning: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Commas, quotes, line ends and bytes that are no text."""
    folder = tmp_path_factory.mktemp("any")
    odd = os.fsdecode(b"/caf\xe9/") + name
    row = Row(Path(odd), name, "done", error=error, warnings=(warning,))
    path = write(folder, row)
    (read,) = read_rows(path)
    assert (read.input, read.output) == (Path(odd), name)
    assert read.error == " ".join(error.split())


def test_outputs_are_named_within_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert key(Path("out/deep/a.tif"), Path("out")) == "deep/a.tif"
    assert key(tmp_path / "out" / "a.tif", Path("out")) == "a.tif"
    assert key(Path("out/a.tif"), tmp_path / "out") == "a.tif"
