"""The papers' experiments: their counts on whole trees of frames, no slide in two parts, and what is noted."""

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from restain import make_phantom
from restain.errors import InputError
from restain.evaluation.datasets import PROTOCOLS
from restain.evaluation.datasets.protocols import (
    dstgan_bach,
    dstgan_glas,
    dstgan_mitos,
    dstgan_tupac,
    stainnet_camelyon,
    stainnet_mitos,
    stst_mitos,
)
from restain.evaluation.datasets.splits import check_split

from . import trees

APERIO, HAMAMATSU = (1539, 1376), (1663, 1485)


def headers(path: Path, size: tuple[int, int]) -> None:
    """A tree's pictures get the real size, in one bit a pixel: only headers are read."""
    for picture in path.rglob("*.tiff"):
        Image.new("1", size).save(picture, compression="group4")


@pytest.fixture(scope="module")
def mitos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of the real size: 2 + 1 slides, two x20 frames each."""
    root = trees.mitos(tmp_path_factory.mktemp("mitos"))
    for folder in root.iterdir():
        headers(folder, APERIO if folder.name.startswith("A") else HAMAMATSU)
    return root


def test_stainnet_on_mitos(mitos: Path) -> None:
    protocol = stainnet_mitos(mitos)
    assert {name: len(part) for name, part in protocol.patches.items()} == {"train": 4 * 16, "test": 2 * 16}
    assert {pair.slide for pair in protocol.pairs} == {"03", "04", "06"}
    assert {patch.item.scanner for part in protocol.patches.values() for patch in part} == {"aperio"}
    assert {patch.item.magnification for part in protocol.patches.values() for patch in part} == {"x40"}
    sources = {pair.source for pair in protocol.pairs}
    assert all(patch.item.path in sources for part in protocol.patches.values() for patch in part)
    assert protocol.notes == ["train: 64 where the paper has 19,200", "test: 32 where the paper has 7,936"]


def test_stst_on_mitos(mitos: Path) -> None:
    protocol = stst_mitos(mitos)
    assert {name: len(part) for name, part in protocol.patches.items()} == {"train": 120, "test": 60, "test_source": 60}
    check_split({name: protocol.items[name] for name in ("train", "test")})
    for fed, wanted in zip(protocol.patches["test_source"], protocol.patches["test"], strict=True):
        assert (fed.location, fed.item.pair) == (wanted.location, wanted.item.pair)
        assert (fed.item.scanner, wanted.item.scanner) == ("aperio", "hamamatsu")


def test_stst_as_it_was_published_leaks_and_says_so(mitos: Path) -> None:
    protocol = stst_mitos(mitos, as_published=True)
    assert not set(protocol.patches["train"]) & set(protocol.patches["test"])
    assert "in train and test, as in the paper" in protocol.notes[0]


def test_dstgan_on_mitos(mitos: Path) -> None:
    protocol = dstgan_mitos(mitos)
    assert {name: len(part) for name, part in protocol.items.items()} == {
        "train_source": 4, "train_target": 4, "test_source": 2, "test_target": 2,
    }  # fmt: skip
    assert {i.scanner for i in protocol.items["train_source"]} == {"aperio"}


def test_the_real_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1200 and 496 x40 frames of 300 and 124 x20 frames, as the data set has them."""
    from restain.evaluation.datasets import mitos as layout
    from restain.evaluation.datasets import protocols
    from restain.evaluation.datasets.item import Item

    slides = sorted(layout.TRAINING_SLIDES) + sorted(layout.TEST_SLIDES)
    per_slide = dict.fromkeys(slides, 27) | {"18": 30} | dict.fromkeys(sorted(layout.TEST_SLIDES), 25) | {"16": 24}

    def frames(_: object, magnification: str) -> list[Item]:
        return [
            Item(
                Path(f"{letter}{slide}_{i}{quarter}.tiff"), "mitos", slide,
                scanner=scanner, magnification=magnification,
                split="train" if slide in layout.TRAINING_SLIDES else "test", pair=f"{slide}_{i}{quarter}",
            )
            for slide in slides
            for letter, scanner in layout.SCANNERS.items()
            for i in range(per_slide[slide])
            for quarter in ("abcd" if magnification == "x40" else " ")
        ]  # fmt: skip

    monkeypatch.setattr(protocols, "list_mitos", frames)
    monkeypatch.setattr(protocols, "picture_size", lambda item: APERIO if item.scanner == "aperio" else HAMAMATSU)
    assert stainnet_mitos(tmp_path).notes == []
    published = stst_mitos(tmp_path, as_published=True)
    assert len(published.notes) == 1
    assert len(protocols._thirties([i for i in frames(None, "x20") if i.scanner == "hamamatsu"])) == 12_720
    split = stst_mitos(tmp_path)
    assert split.notes == []
    check_split({name: split.items[name] for name in ("train", "test")})


def test_frames_that_are_too_small_are_told(tmp_path: Path) -> None:
    root = trees.mitos(tmp_path)
    with pytest.raises(InputError, match="do not fit into 8x6"):
        stainnet_mitos(root)
    with pytest.raises(InputError, match="is not tiled"):
        stst_mitos(root)


def test_dstgan_on_tupac(tmp_path: Path) -> None:
    protocol = dstgan_tupac(trees.tupac(tmp_path))
    assert {i.patient for i in protocol.items["target"]} == {"01"}
    assert {i.patient for i in protocol.items["source"]} == {"23", "24", "49"}
    assert protocol.notes == []


def test_dstgan_on_glas_leaves_out_patients_of_the_test(tmp_path: Path) -> None:
    root = trees.glas(tmp_path)
    protocol = dstgan_glas(root)
    check_split(protocol.items)
    assert Counter(i.split for i in protocol.items["train"]) == {"train": 2, "testA": 3}
    published = dstgan_glas(root, as_published=True)
    assert len(published.items["train"]) == 6
    assert "patients in train and test, as in the paper: 7" in published.notes
    (root / "Grade.csv").unlink()
    assert "not known whether" in dstgan_glas(root).notes[-1]


def test_dstgan_on_bach(tmp_path: Path) -> None:
    protocol = dstgan_bach(trees.bach(tmp_path, each=100))
    assert {name: len(part) for name, part in protocol.items.items()} == {"train": 300, "test": 100}
    assert set(Counter(i.label for i in protocol.items["test"]).values()) == {25}
    assert len(protocol.notes) == 2  # the split is ours, and patients are not known


def test_stainnet_on_camelyon(tmp_path: Path) -> None:
    root = trees.camelyon16(tmp_path)
    tissue = Image.fromarray(make_phantom(512, 512, seed=5, glass_fraction=0.0).image)
    for path in (root / "training").rglob("*.tif"):
        tissue.save(path)
    protocol = stainnet_camelyon(root, count=5)
    assert {name: len(part) for name, part in protocol.patches.items()} == {"train_source": 5, "train_target": 5}
    assert {i.center for i in protocol.items["train_source"]} == {"utrecht"}
    assert {i.slide for i in protocol.items["train_target"]} == {"normal_001", "normal_100", "tumor_070"}
    assert protocol.notes == []


def test_every_protocol_is_listed() -> None:
    of_stainnet, of_dstgan = {"mitos", "camelyon"}, {"mitos", "tupac", "glas", "bach"}
    names = {f"stainnet-{data}" for data in of_stainnet} | {f"dstgan-{data}" for data in of_dstgan} | {"stst-mitos"}
    assert set(PROTOCOLS) == names
