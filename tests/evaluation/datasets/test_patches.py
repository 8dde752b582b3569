"""Where patches lie, what is read there, and what of a slide is tumour."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from restain import make_phantom
from restain.errors import FormatError, InputError, SlideError
from restain.evaluation.datasets.asap import Outline, draw_outlines, read_outlines
from restain.evaluation.datasets.item import Item
from restain.evaluation.datasets.patches import Patch, choose, corner_grid, picture_size, read_patches, spread_grid
from restain.evaluation.datasets.slide_patches import tissue_patches, tumor_shares
from restain.slides.writer import PyramidSettings, write_array

from . import trees

# ---- geometry ---------------------------------------------------------------------------------------------------


@given(
    st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(1, 300),
    st.integers(0, 60),
)
def test_a_spread_grid_lies_inside_and_does_not_overlap(
    size: tuple[int, int], rows: int, columns: int, patch: int, margin: int
) -> None:
    fits = size[0] - 2 * margin >= columns * patch and size[1] - 2 * margin >= rows * patch
    if not fits:
        with pytest.raises(InputError, match="do not fit"):
            spread_grid(size, rows, columns, patch=patch, margin=margin)
        return
    corners = spread_grid(size, rows, columns, patch=patch, margin=margin)
    assert len(set(corners)) == rows * columns
    xs, ys = (sorted({corner[axis] for corner in corners}) for axis in (0, 1))
    assert xs[0] >= margin
    assert ys[0] >= margin
    assert xs[-1] + patch <= size[0] - margin
    assert ys[-1] + patch <= size[1] - margin
    assert min(np.diff(xs), default=patch) >= patch
    assert min(np.diff(ys), default=patch) >= patch
    assert corners == sorted(corners, key=lambda corner: corner[::-1])


@given(st.integers(1, 6), st.integers(1, 6), st.integers(8, 64), st.integers(0, 100))
def test_a_corner_grid_tiles_the_corner(columns: int, rows: int, patch: int, more: int) -> None:
    wide, tall = columns * patch, rows * patch
    covered = np.zeros((tall + more, wide + more), int)
    for x, y in corner_grid((wide + more, tall + more), wide, tall, patch=patch):
        covered[y : y + patch, x : x + patch] += 1
    assert (covered[:tall, :wide] == 1).all()
    assert covered.sum() == tall * wide


@pytest.mark.parametrize(("width", "height"), [(300, 256), (256, 2560), (0, 0), (2560, 256)])
def test_a_corner_that_is_not_tiled_is_told(width: int, height: int) -> None:
    with pytest.raises(InputError, match="is not tiled"):
        corner_grid((1539, 1376), width, height)


def test_the_papers_numbers_fit_the_papers_frames() -> None:
    for size in ((1539, 1376), (1663, 1485)):
        assert len(spread_grid(size, 4, 4, margin=48)) == 16
        assert len(corner_grid(size, 1536, 1280)) == 30


def test_choosing_is_seeded_and_keeps_the_order() -> None:
    patches = [Patch(Item(Path(f"{i}"), "folder", f"{i}"), (i, 0)) for i in range(50)]
    chosen = choose(patches, 10, seed=3)
    assert chosen == choose(patches, 10, seed=3) != choose(patches, 10, seed=4)
    assert [patches.index(p) for p in chosen] == sorted({patches.index(p) for p in chosen})
    assert choose(patches, 50) == choose(patches, 99) == patches
    with pytest.raises(InputError):
        choose(patches, -1)


# ---- reading ----------------------------------------------------------------------------------------------------


def test_patches_are_read_where_they_lie(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    item = Item(tmp_path / "a.png", "folder", "a")
    assert picture_size(item) == (80, 60)
    inside, over = [p for _, p in read_patches([Patch(item, (5, 7), 16), Patch(item, (70, 50), 16)])]
    assert np.array_equal(inside, pixels[7:23, 5:21])
    assert np.array_equal(over[:10, :10], pixels[50:, 70:])
    assert (over[10:] == 255).all()
    with pytest.raises(SlideError, match="wanted level 1"):
        list(read_patches([Patch(item, (0, 0), 16, level=1)]))
    with pytest.raises(SlideError):
        picture_size(Item(trees.text(tmp_path / "b.png", "words"), "folder", "b"))


# ---- outlines ---------------------------------------------------------------------------------------------------


def test_outlines_are_read_in_their_order(tmp_path: Path) -> None:
    path = trees.outlines(
        tmp_path / "a.xml",
        ("Tumor", trees.square(10.5, 20, 30)),
        ("_2", trees.square(15, 25, 5)),
        ("Exclusion", [(0, 0), (1, 1)]),  # no area
    )
    tumor, hole = read_outlines(path)
    assert tumor.points.tolist() == [[10.5, 20], [40.5, 20], [40.5, 50], [10.5, 50]]
    assert (tumor.group, tumor.excluding, hole.excluding) == ("Tumor", False, True)


ENTITY = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><ASAP_Annotations>&x;</ASAP_Annotations>'
BOMB = '<!DOCTYPE a [<!ENTITY x "aaaaaaaaaa"><!ENTITY y "&x;&x;&x;">]><ASAP_Annotations>&y;</ASAP_Annotations>'
COORDINATE = '<ASAP_Annotations><Annotation PartOfGroup="T"><Coordinate {}/></Annotation></ASAP_Annotations>'
BAD = {
    "an entity": (ENTITY, "document type"),
    "a bomb": (BOMB, "document type"),
    "an entity in other letters": (BOMB.encode("utf-16"), "document type"),
    "words": ("words", "cannot be read"),
    "half a file": ("<ASAP_Annotations><Annotations>", "cannot be read"),
    "another XML": ("<svg/>", "not of ASAP"),
    "no X": (COORDINATE.format('Order="0" Y="1"'), "cannot be read"),
    "words for X": (COORDINATE.format('Order="0" X="a" Y="1"'), "cannot be read"),
    "no number": (COORDINATE.format('Order="0" X="nan" Y="1"'), "not finite"),
}


@pytest.mark.parametrize(("content", "said"), BAD.values(), ids=BAD)
def test_bad_outlines_are_told_and_entities_are_never_read(content: str | bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(FormatError, match=said):
        read_outlines(path)


def test_missing_outlines_are_told(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"a\.xml cannot be read"):
        read_outlines(tmp_path / "a.xml")


@given(st.integers(0, 40), st.integers(0, 40), st.integers(2, 40), st.sampled_from([1, 2, 4]))
def test_drawn_squares_cover_their_pixels(x: int, y: int, side: int, downsample: int) -> None:
    x, y, side = x * downsample, y * downsample, side * downsample
    outline = Outline("Tumor", np.array(trees.square(x, y, side), float))
    mask = draw_outlines([outline], (100, 100), downsample=downsample)
    rows, columns = (slice(v // downsample, (v + side) // downsample) for v in (y, x))
    assert mask[rows, columns].all()
    # Pillow draws the line itself too: a pixel more on each side at most.
    assert mask.sum() <= (side // downsample + 1) ** 2


def test_healthy_tissue_is_cut_out_whatever_comes_first() -> None:
    tumor = Outline("Tumor", np.array(trees.square(10, 10, 60), float))
    hole = Outline("normal", np.array(trees.square(30, 30, 20), float))
    for outlines in ([tumor, hole], [hole, tumor]):
        mask = draw_outlines(outlines, (100, 100))
        assert mask[20, 20]
        assert not mask[40, 40]
        assert not mask[90, 90]
    moved = draw_outlines([tumor, hole], (50, 50), location=(10, 10), downsample=2)
    assert moved[2, 2]
    assert not moved[15, 15]


def test_shares_of_tumour() -> None:
    shares = tumor_shares([Outline("Tumor", np.array(trees.square(0, 0, 96), float))], (2, 3), 64)
    assert shares.shape == (2, 3)
    assert shares[0, 0] == 1
    assert shares[0, 1] == pytest.approx(0.5, abs=0.13)
    assert shares[1, 2] == pytest.approx(0, abs=0.1)


# ---- slides -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of 640 x 512 pixels with two levels: tissue but for a strip of glass on the right."""
    pixels = make_phantom(512, 640, seed=3, glass_fraction=0.0).image.copy()
    pixels[:, 448:] = 243
    path = tmp_path_factory.mktemp("slides") / "tumor_001.tif"
    write_array(path, pixels, settings=PyramidSettings(tile=128))
    return path


def test_patches_of_a_slide_show_tissue(slide: Path) -> None:
    item = Item(slide, "camelyon16", "normal_001", label="normal")
    patches = tissue_patches(item, size=64)
    corners = {patch.location for patch in patches}
    assert len(corners) == len(patches) == 8 * 7
    assert all(x % 64 == 0 and y % 64 == 0 and x < 448 for x, y in corners)
    assert {patch.label for patch in patches} == {"normal"}
    assert tissue_patches(item, 10, size=64, seed=1) == tissue_patches(item, 10, size=64, seed=1)
    assert len(tissue_patches(item, 10, size=64)) == 10
    assert {p.label for p in tissue_patches(Item(slide, "camelyon16", "test_001"), size=64)} == {None}


def test_outlines_label_patches(slide: Path, tmp_path: Path) -> None:
    path = trees.outlines(tmp_path / "tumor_001.xml", ("Tumor", trees.square(0, 0, 160)))
    item = Item(slide, "camelyon16", "tumor_001", label="tumor", annotations=path)
    labels = {patch.location: patch.label for patch in tissue_patches(item, size=64)}
    assert [corner for corner, label in labels.items() if label == "tumor"] == [(0, 0), (64, 0), (0, 64), (64, 64)]
    assert (128, 0) not in labels  # half of it is tumour
    assert labels[(256, 256)] == "normal"
    for count, tumor in ((6, 3), (8, 4), (20, 4)):
        chosen = [patch.label for patch in tissue_patches(item, count, size=64)]
        assert (chosen.count("tumor"), len(chosen)) == (tumor, count)


def test_patches_of_a_smaller_level(slide: Path) -> None:
    patches = tissue_patches(Item(slide, "camelyon16", "normal_001"), size=64, level=1)
    assert {patch.location[0] % 128 for patch in patches} == {0}
    assert {pixels.shape for _, pixels in read_patches(patches)} == {(64, 64, 3)}
    with pytest.raises(InputError, match="wanted level 9"):
        tissue_patches(Item(slide, "camelyon16", "normal_001"), level=9)
    with pytest.raises(InputError, match="count=-1"):
        tissue_patches(Item(slide, "camelyon16", "normal_001"), -1)


def test_a_slide_smaller_than_a_patch_has_none(tmp_path: Path) -> None:
    trees.picture(tmp_path / "a.tif", (100, 100), 120)
    assert tissue_patches(Item(tmp_path / "a.tif", "camelyon16", "normal_001")) == []
