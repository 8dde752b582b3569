"""Each public layout, as a small tree: what is listed, what is said about it, and what is passed over."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restain.errors import InputError, SlideError
from restain.evaluation.datasets import DATASETS
from restain.evaluation.datasets.bach import list_bach
from restain.evaluation.datasets.camelyon import list_camelyon16, list_camelyon17
from restain.evaluation.datasets.folders import list_folder
from restain.evaluation.datasets.glas import list_glas
from restain.evaluation.datasets.item import Item
from restain.evaluation.datasets.labels import read_labels
from restain.evaluation.datasets.mitos import TEST_SLIDES, TRAINING_SLIDES, list_mitos, mitos_pairs, read_mitoses
from restain.evaluation.datasets.pairing import pair_items
from restain.evaluation.datasets.tupac import list_tupac
from restain.evaluation.datasets.tupac import read_mitoses as read_tupac_mitoses

from . import trees

TREES: dict[str, Callable[[Path], Path]] = {
    "mitos": trees.mitos,
    "tupac": trees.tupac,
    "bach": trees.bach,
    "glas": trees.glas,
    "camelyon16": trees.camelyon16,
    "camelyon17": trees.camelyon17,
    "folder": trees.bach,
}


# ---- what every reader must answer ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATASETS)
def test_items_are_there_once_in_order_and_unread(name: str, tmp_path: Path) -> None:
    root = TREES[name](tmp_path / "data")
    items = DATASETS[name](root)
    assert items == DATASETS[name](str(root))
    assert len({item.path for item in items}) == len(items)
    assert all(item.path.is_file() and item.dataset == name and item.slide for item in items)
    for item in items:
        for beside in (item.mask, item.annotations):
            assert beside is None or beside.is_file()
        item.path.write_bytes(b"")  # it is not opened
    assert DATASETS[name](root) == items


@pytest.mark.parametrize("name", DATASETS)
def test_folders_without_it_are_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a folder"):
        DATASETS[name](tmp_path / "gone")
    trees.text(tmp_path / "data" / "notes.txt")
    with pytest.raises(InputError, match="holds nothing in the layout"):
        DATASETS[name](tmp_path / "data")


# ---- one by one -------------------------------------------------------------------------------------------------


def test_mitos(tmp_path: Path) -> None:
    root = trees.mitos(tmp_path)
    items = list_mitos(root)
    assert len(items) == 3 * 2 * 5
    assert {item.magnification for item in items} == {"x10", "x20", "x40"}
    x40 = {item.path.stem: item for item in list_mitos(root, "x40")}
    assert set(x40) == {f"{s}{n}_{f}a" for s in "AH" for n in ("03", "04", "06") for f in ("00A", "00B")}
    item = x40["H03_00Aa"]
    assert (item.slide, item.scanner, item.split, item.pair) == ("03", "hamamatsu", "train", "03_00Aa")
    assert x40["A06_00Aa"].split == "test"
    assert read_mitoses(item).tolist() == [[10, 20], [30, 40]]
    assert read_mitoses(x40["H03_00Ba"]).shape == (0, 2)
    x20 = {item.path.stem: item for item in list_mitos(root, "x20")}
    assert (x20["A04_00A"].label, x20["A04_00B"].label) == ("2", None)  # some scores are empty files
    assert x20["A04_00A"].annotations is None
    assert (len(TRAINING_SLIDES), len(TEST_SLIDES), TRAINING_SLIDES & TEST_SLIDES) == (11, 5, set())


def test_mitos_pairs(tmp_path: Path) -> None:
    pairs = mitos_pairs(trees.mitos(tmp_path))
    assert [pair.name for pair in pairs] == [f"x40/{n}_{f}a" for n in ("03", "04", "06") for f in ("00A", "00B")]
    for pair in pairs:
        assert pair.source.name[1:] == pair.target.name[1:]
        assert (pair.source.name[0], pair.target.name[0]) == ("A", "H")
        assert pair.slide == pair.source.name[1:3]


def test_pairing_says_what_is_wrong(tmp_path: Path) -> None:
    items = list_mitos(trees.mitos(tmp_path), "x40")
    with pytest.raises(InputError, match=r"0 of leica"):
        pair_items(items, "aperio", "leica")
    with pytest.raises(InputError, match="twice"):
        pair_items([*items, items[0]], "aperio", "hamamatsu")
    one_missing = [item for item in items if item.path.stem != "H03_00Aa"]
    assert len(pair_items(one_missing, "aperio", "hamamatsu")) == 5


def test_tupac(tmp_path: Path) -> None:
    items = {item.slide + item.path.stem: item for item in list_tupac(trees.tupac(tmp_path))}
    assert set(items) == {"0101", "0102", "2301", "2401", "4901", "4902", "test-0101"}
    assert [items[key].center for key in ("0101", "2301", "2401", "4901", "test-0101")] == ["1", "1", "2", "3", None]
    assert (items["0101"].split, items["test-0101"].split) == ("train", "test")
    assert read_tupac_mitoses(items["0101"]).tolist() == [[10, 20], [30, 40]]  # rows come first in the file
    assert items["0102"].annotations is None
    assert read_tupac_mitoses(items["0102"]).shape == (0, 2)
    assert items["test-0101"].annotations is None


@pytest.mark.parametrize("content", ["a,b\n", "1\n", "1,2\n3\n"])
def test_wrong_positions_are_told(content: str, tmp_path: Path) -> None:
    item = Item(tmp_path / "x", "mitos", "03", annotations=trees.text(tmp_path / "p.csv", content))
    with pytest.raises(InputError, match="two numbers"):
        read_mitoses(item)


def test_bach(tmp_path: Path) -> None:
    root = trees.bach(tmp_path)
    patients = trees.text(tmp_path / "patients.csv", "b001.tif,p1\nb002,p1\n")
    items = {item.slide: item for item in list_bach(root, patients)}
    assert len(items) == 16
    assert (items["b001"].label, items["is002"].label, items["iv001"].label) == ("Benign", "InSitu", "Invasive")
    assert (items["b001"].patient, items["b002"].patient, items["n001"].patient) == ("p1", "p1", None)


def test_bach_without_folders_of_classes(tmp_path: Path) -> None:
    trees.picture(tmp_path / "all" / "n001.tif")
    trees.picture(tmp_path / "all" / "unknown.tif")
    trees.text(tmp_path / "all" / "microscopy_ground_truth.csv", "n001.tif,Normal\n")
    assert [(item.slide, item.label) for item in list_bach(tmp_path)] == [("n001", "Normal")]


def test_bach_that_contradicts_itself_is_told(tmp_path: Path) -> None:
    trees.picture(tmp_path / "Benign" / "b001.tif")
    table = trees.text(tmp_path / "microscopy_ground_truth.csv", "b001.tif,Normal\n")
    with pytest.raises(InputError, match="calls it Normal"):
        list_bach(tmp_path)
    table.write_text("b001.tif\n")
    with pytest.raises(InputError, match="one column"):
        list_bach(tmp_path)


def test_glas(tmp_path: Path) -> None:
    items = {item.path.stem: item for item in list_glas(trees.glas(tmp_path))}
    assert set(items) == {f"{part}_{i}" for part in ("train", "testA", "testB") for i in (1, 2, 3)}
    train = items["train_1"]
    assert (train.split, train.patient, train.label, train.slide) == ("train", "1", "benign", "patient 1")
    assert items["testB_3"].label == "malignant"
    assert train.mask is not None
    labels = read_labels(train.mask)
    assert labels.shape == (6, 8)
    assert np.unique(labels).tolist() == [0, 1, 2]


def test_glas_without_grades_or_in_two_folders(tmp_path: Path) -> None:
    for path in trees.glas(tmp_path / "owner", grades=False).glob("*.bmp"):
        folder = "mask" if path.stem.endswith("_anno") else "img"
        (tmp_path / "copy" / folder).mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.save(tmp_path / "copy" / folder / f"{path.stem.removesuffix('_anno')}.png")
    for folder in ("owner", "copy"):
        items = list_glas(tmp_path / folder)
        assert len(items) == 9
        assert all(item.mask is not None and item.patient is None and item.label is None for item in items)
    trees.text(tmp_path / "owner" / "Grade.csv", "name,grade\n")
    with pytest.raises(InputError, match="wanted name, patient ID"):
        list_glas(tmp_path / "owner")


def test_labels_that_are_none_are_told(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="wanted an image of labels"):
        read_labels(trees.picture(tmp_path / "colour.png"))
    with pytest.raises(SlideError, match="does not exist"):
        read_labels(tmp_path / "gone.png")
    with pytest.raises(SlideError, match="cannot be read"):
        read_labels(trees.text(tmp_path / "words.png", "words"))


def test_camelyon16(tmp_path: Path) -> None:
    items = {item.slide: item for item in list_camelyon16(trees.camelyon16(tmp_path))}
    assert {name: (item.center, item.split, item.label) for name, item in items.items()} == {
        "normal_001": ("radboud", "train", "normal"),
        "normal_100": ("radboud", "train", "normal"),
        "normal_101": ("utrecht", "train", "normal"),
        "tumor_070": ("radboud", "train", "tumor"),
        "tumor_071": ("utrecht", "train", "tumor"),
        "test_001": (None, "test", "tumor"),  # it has outlines
        "test_002": (None, "test", "normal"),  # the table says so
        "test_003": (None, "test", None),
    }
    assert items["tumor_070"].annotations is not None
    assert items["tumor_071"].annotations is None


def test_camelyon17(tmp_path: Path) -> None:
    items = {item.slide: item for item in list_camelyon17(trees.camelyon17(tmp_path))}
    assert {name: (item.patient, item.center, item.split, item.label) for name, item in items.items()} == {
        "patient_000_node_0": ("patient_000", "0", "train", "negative"),
        "patient_000_node_1": ("patient_000", "0", "train", "macro"),
        "patient_045_node_4": ("patient_045", "2", "train", None),
        "patient_100_node_0": ("patient_100", None, "test", None),
    }
    assert items["patient_000_node_1"].annotations is not None


def test_folders(tmp_path: Path) -> None:
    for name in ("a/x.png", "a/y.jpg", "b/x.png", "top.png"):
        trees.picture(tmp_path / name)
    assert [(item.slide, item.label) for item in list_folder(tmp_path)] == [
        ("a/x", "a"), ("a/y", "a"), ("b/x", "b"), ("top", None),
    ]  # fmt: skip
    assert [item.slide for item in list_folder(tmp_path, "slide")] == ["a", "a", "b", "top"]


# ---- real subsets -----------------------------------------------------------------------------------------------


def test_real_glas(data: Path) -> None:
    if not (data / "glas").is_dir():
        pytest.skip(f"{data} has no glas")
    items = list_glas(data / "glas")
    assert len(items) == 45
    for item in items[::15]:
        assert item.mask is not None
        labels = read_labels(item.mask)
        with Image.open(item.path) as image:
            assert image.size == labels.shape[::-1]
        assert labels.max() >= 2
        assert labels.min() == 0


@pytest.mark.parametrize("name", ["crc_val_he_7k", "lc25000", "osteosarcoma", "mendeley_lbc"])
def test_real_folders_of_classes(data: Path, name: str) -> None:
    if not (data / name).is_dir():
        pytest.skip(f"{data} has no {name}")
    items = list_folder(data / name)
    assert len({item.label for item in items} - {None}) >= 2
