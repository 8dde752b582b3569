"""Pairs by name and by csv: what is paired, what is called what, and what is said about a wrong table."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restain.errors import InputError, OutputError
from restain.evaluation.datasets.pairs import Pair, pair_folders, read_pairs, write_pairs


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


# ---- by name ----------------------------------------------------------------------------------------------------


def test_files_of_one_name_are_a_pair_whatever_their_extension(tmp_path: Path) -> None:
    a = touch(tmp_path / "a", "x.png", "deep/y.tif", "alone.png", "notes.txt", ".hidden.png")
    b = touch(tmp_path / "b", "x.jpg", "deep/y.tif", "y.tif")
    pairs, alone = pair_folders(a, b)
    assert pairs == [Pair("deep/y", a / "deep/y.tif", b / "deep/y.tif"), Pair("x", a / "x.png", b / "x.jpg")]
    assert set(alone) == {a / "alone.png", b / "y.tif"}


def test_a_folder_of_outputs_is_left_out(tmp_path: Path) -> None:
    a, b = touch(tmp_path / "a", "x.png", "out/x.png"), touch(tmp_path / "b", "x.png", "out/x.png")
    assert [pair.name for pair in pair_folders(a, b, without=a / "out")[0]] == ["x"]


def test_names_that_are_not_told_apart_are_an_error(tmp_path: Path) -> None:
    a, b = touch(tmp_path / "a", "x.png", "x.jpg"), touch(tmp_path / "b", "x.png")
    with pytest.raises(InputError, match="have one name"):
        pair_folders(a, b)


def test_nothing_to_pair_is_an_error(tmp_path: Path) -> None:
    a, b = touch(tmp_path / "a", "A03_00.png"), touch(tmp_path / "b", "H03_00.png")
    with pytest.raises(InputError, match="columns source,target"):
        pair_folders(a, b)
    with pytest.raises(InputError, match="not a folder"):
        pair_folders(a, tmp_path / "gone")


# ---- by csv -----------------------------------------------------------------------------------------------------


def read(tmp_path: Path, text: str) -> list[Pair]:
    (tmp_path / "pairs.csv").write_text(text, encoding="utf-8")
    return read_pairs(tmp_path / "pairs.csv", tmp_path / "a", tmp_path / "b")


def test_files_of_a_csv_lie_in_the_two_folders(tmp_path: Path) -> None:
    pairs = read(tmp_path, "target,source,extra\nH03.tif,deep/A03.tif,7\n\n/far/H4.tif,/far/A04.tif,8\n")
    assert pairs == [
        Pair("deep/A03", tmp_path / "a/deep/A03.tif", tmp_path / "b/H03.tif"),
        Pair("A04", Path("/far/A04.tif"), Path("/far/H4.tif")),
    ]


def test_optional_columns_of_a_csv(tmp_path: Path) -> None:
    text = "\ufeffname,source,target,slide,patient,dy,dx\nfirst,x.png,y.png,03,p1,-5,4.5\nsecond,x.png,z.png,,,,\n"
    first, second = read(tmp_path, text)
    assert (first.name, first.slide, first.patient, first.shift) == ("first", "03", "p1", (-4.5, 5.0))
    assert (second.name, second.slide, second.patient, second.shift) == ("second", None, None, None)


def test_tiles_of_a_csv_are_found_by_their_names(tmp_path: Path) -> None:
    touch(tmp_path / "a", "030_0.png")
    touch(tmp_path / "b", "030_0.jpg")
    known, unknown = read(tmp_path, "tile,slide,dy,dx,ncc\n030_0,03,-5,-4,0.9\n030_1,03,0,0,0.9\n")
    assert known == Pair("030_0", tmp_path / "a/030_0.png", tmp_path / "b/030_0.jpg", "03", None, (4.0, 5.0))
    assert unknown.source == tmp_path / "a/030_1"  # reported when it is opened


WRONG = {
    "no columns": ("from,to\na,b\n", "columns from, to; wanted source and target"),
    "empty": ("", "columns nothing"),
    "no rows": ("source,target\n", "no rows"),
    "no target": ("source,target\nx.png,\n", "line 2: the target is missing"),
    "short row": ("source,target\nx.png\n", "line 2: the target is missing"),
    "words": ("source,target,dy,dx\nx.png,y.png,far,1\n", "line 2: got dy='far'"),
    "half a shift": ("source,target,dy,dx\nx.png,y.png,1,\n", "wanted two numbers"),
    "infinite": ("source,target,dy,dx\nx.png,y.png,inf,1\n", "finite"),
    "same name": ("source,target\nx.png,y.png\nx.tif,z.png\n", "two pairs called 'x'"),
    "outside": ("name,source,target\n../x,x.png,y.png\n", "wanted a relative path"),
    "absolute": ("name,source,target\n/x,x.png,y.png\n", "wanted a relative path"),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG)
def test_wrong_tables_are_told(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(InputError) as error:
        read(tmp_path, text)
    assert said in str(error.value)
    assert "pairs.csv" in str(error.value)


def test_a_table_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pairs\.csv cannot be read"):
        read_pairs(tmp_path / "pairs.csv", tmp_path, tmp_path)
    (tmp_path / "pairs.csv").write_bytes(b"\xff\xfe\x00source")
    with pytest.raises(InputError, match=r"pairs\.csv cannot be read"):
        read_pairs(tmp_path / "pairs.csv", tmp_path, tmp_path)


NAMES = st.text(st.characters(blacklist_categories=["C", "Z"], blacklist_characters="/\\"), min_size=1, max_size=8)
NUMBERS = st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-6)


@given(st.lists(NAMES, min_size=1, max_size=4, unique=True), st.none() | st.tuples(NUMBERS, NUMBERS))
def test_written_pairs_are_read_again(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], shift: tuple[float, float] | None
) -> None:
    folder = tmp_path_factory.mktemp("pairs")
    pairs = [Pair(f"n{name}n", folder / "a.png", folder / "b.png", "s", "p", shift) for name in names]
    write_pairs(folder / "pairs.csv", pairs)
    assert read_pairs(folder / "pairs.csv", folder, folder) == pairs
    with pytest.raises(OutputError, match="exists"):
        write_pairs(folder / "pairs.csv", pairs)


def test_the_real_table(data: Path) -> None:
    folder = data / "mitos_pairs"
    if not folder.is_dir():
        pytest.skip(f"{data} has no mitos_pairs")
    pairs = read_pairs(folder / "pairs.csv", folder / "aperio", folder / "hamamatsu")
    assert len(pairs) == 80
    assert {pair.slide for pair in pairs} == {"03", "04", "05", "07"}
    assert all(pair.source.is_file() and pair.target.is_file() for pair in pairs)
    assert pair_folders(folder / "aperio", folder / "hamamatsu")[1] == []
