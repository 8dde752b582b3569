"""The sample of a slide: tissue and glass are found, read within bounds, and the same in every run."""

import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from restain.color.builder import HistogramBuilder
from restain.color.glass import find_white_point
from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8
from restain.errors import InputError, SlideError, SlideWarning
from restain.phantom import Phantom, Scanner, make_phantom
from restain.slides.icc import srgb_profile
from restain.slides.reader import OnError, Slide, open_slide
from restain.slides.sample import sample_slide, sample_tiles
from restain.slides.tissue import find_tissue
from restain.slides.writer import PyramidSettings, write_array

from ..icc_profiles import matrix_profile
from .making import write_with_holes

SIDE = 64
SHARP = PyramidSettings(tile=SIDE, quality=95)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    """Half tissue, half glass."""
    return make_phantom(768, 1024, seed=5, scanner=Scanner(white=(232.0, 236.0, 240.0), noise=1.0), glass_fraction=0.5)


@pytest.fixture(scope="module")
def slide(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "slide.tif"
    write_array(path, phantom.image, settings=SHARP, icc_profile=srgb_profile())
    return path


def by_tile(mask: NDArray[np.bool_], tile: int) -> NDArray[np.float64]:
    """The share of each tile that is set, (rows, columns)."""
    padded = np.pad(mask.astype(np.float64), ((0, -mask.shape[0] % tile), (0, -mask.shape[1] % tile)), mode="edge")
    share: NDArray[np.float64] = padded.reshape(padded.shape[0] // tile, tile, -1, tile).mean(axis=(1, 3))
    return share


# ---- finding ----------------------------------------------------------------------------------------------------


def stained(phantom: Phantom) -> NDArray[np.bool_]:
    """Where the planted density is above 0.3 in some channel: plain to see."""
    density: NDArray[np.float64] = phantom.concentrations @ phantom.stain_matrix
    return np.asarray(density.max(axis=2) > 0.3)


@pytest.mark.parametrize("tile", [16, 64, 100])
def test_tissue_and_glass_are_found(tile: int, phantom: Phantom, slide: Path) -> None:
    with open_slide(slide) as opened:
        tissue, glass = find_tissue(opened, tile)
    rows, columns = -(-768 // tile), -(-1024 // tile)
    assert tissue.shape == glass.shape == (rows, columns)
    assert (tissue ^ glass).all()  # without padding every tile is one or the other
    planted = by_tile(stained(phantom), tile)
    assert tissue[planted > 0.02].all()
    # JPEG bleeds a few pixels over the edge of a tile; besides that, clean glass is glass.
    empty = by_tile(phantom.glass, tile) == 1
    assert glass[empty].mean() > 0.95


def test_tissue_is_found_on_a_thumbnail_of_a_large_slide(phantom: Phantom, tmp_path: Path) -> None:
    """4096 pixels wide: the thumbnail is a smaller level, and tile edges fall between its pixels."""
    white = np.full((1000, 4096, 3), 240, np.uint8)
    white[200:800, 1111:1711] = phantom.image[:600, :600]
    white[950:974, 3500:3524] = (150, 60, 140)  # a speck
    write_array(tmp_path / "slide.tif", white, settings=PyramidSettings(tile=256))
    with open_slide(tmp_path / "slide.tif") as opened:
        tissue, glass = find_tissue(opened, 100)
    planted = np.zeros((1000, 4096), np.bool_)
    planted[200:800, 1111:1711] = stained(phantom)[:600, :600]
    planted[950:974, 3500:3524] = True
    share = by_tile(planted, 100)
    assert tissue[share > 0.05].all()
    assert tissue[9, 35]
    clean = by_tile((white == 240).all(axis=2), 100) == 1
    # A neighbour may share a thumbnail pixel with tissue, no more.
    assert glass[clean].mean() > 0.95


def test_tissue_on_the_edge_of_tiles_belongs_to_all_of_them(tmp_path: Path) -> None:
    """On the thumbnail, at half size, the speck is one pixel."""
    white = np.full((300, 4096, 3), 240, np.uint8)
    white[74:76, 74:76] = (60, 20, 90)
    write_array(tmp_path / "slide.tif", white, settings=PyramidSettings(tile=256, quality=100))
    with open_slide(tmp_path / "slide.tif") as opened:
        tissue, glass = find_tissue(opened, 75)
    assert np.argwhere(tissue).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    np.testing.assert_array_equal(glass, ~tissue)


def test_a_slide_without_tissue(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    glass = np.clip(generator.normal((243, 240, 238), 1, (512, 512, 3)), 0, 255).astype(np.uint8)
    write_array(tmp_path / "slide.tif", glass, settings=SHARP)
    histogram = sample_slide(tmp_path / "slide.tif", tile=SIDE)
    assert histogram.provenance["tissue_tiles"] == histogram.provenance["of_tissue_tiles"] == 0
    assert histogram.provenance["glass_tiles"] == 64
    white = find_white_point(histogram)
    assert white.origin == "glass"
    np.testing.assert_allclose(white.level, glass.mean(axis=(0, 1)), atol=1)


def test_a_slide_that_is_all_tissue(tmp_path: Path) -> None:
    image = make_phantom(512, 512, seed=2, glass_fraction=0.0).image
    write_array(tmp_path / "slide.tif", image, settings=SHARP)
    histogram = sample_slide(tmp_path / "slide.tif", tile=SIDE)
    assert histogram.provenance["tissue_tiles"] == 64
    assert histogram.provenance["glass_tiles"] == 0
    assert histogram.pixels == 512 * 512


@pytest.mark.parametrize(
    "white", [(243.0, 243.0, 243.0), (255.0, 255.0, 255.0), (232.0, 236.0, 240.0), (236.0, 231.0, 228.0)]
)
@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_the_white_point_is_the_planted_one(white: tuple[float, float, float], noise: float, tmp_path: Path) -> None:
    scanner = Scanner(white=white, noise=noise)
    image = make_phantom(512, 768, seed=7, scanner=scanner, glass_fraction=0.3)
    write_array(tmp_path / "slide.tif", image.image, settings=PyramidSettings(tile=128))
    found = find_white_point(sample_slide(tmp_path / "slide.tif", tile=128))
    assert found.origin == "glass"
    np.testing.assert_allclose(found.level, image.image[image.glass].mean(axis=0), atol=1)


# ---- bounds and seeds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("most", "most_glass"), [(SIDE**2, SIDE**2), (200_000, 100_000), (10**9, 10**9)])
def test_no_more_is_read_than_asked(most: int, most_glass: int, slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, int]] = []
    with open_slide(slide) as opened:
        whole = opened.read_region

        def count(location: tuple[int, int], level: int, size: tuple[int, int]) -> object:
            assert (level, size) == (0, (SIDE, SIDE))
            read.append(location)
            return whole(location, level, size)

        tissue, glass = find_tissue(opened, SIDE)
        monkeypatch.setattr(opened, "read_region", count)
        monkeypatch.setattr("restain.slides.sample.find_tissue", lambda *_: (tissue, glass))
        histogram = sample_slide(opened, max_pixels=most, max_glass_pixels=most_glass, tile=SIDE)
    assert histogram.pixels == len(read) * SIDE**2
    assert len(set(read)) == len(read)  # nothing twice
    facts = histogram.provenance
    assert facts["tissue_tiles"] * SIDE**2 <= most
    assert facts["glass_tiles"] * SIDE**2 <= most_glass
    assert len(read) == facts["tissue_tiles"] + facts["glass_tiles"]
    assert facts["tissue_tiles"] == min(tissue.sum(), most // SIDE**2)
    assert facts["glass_tiles"] == min(glass.sum(), most_glass // SIDE**2)


def test_when_all_fits_all_is_counted(slide: Path) -> None:
    histogram = sample_slide(slide, tile=SIDE)
    with open_slide(slide) as opened:
        pixels, _ = opened.read_region((0, 0), 0, opened.dimensions)
    assert replace(histogram, icc_profile=None) == ColorHistogram.from_image(pixels)


def test_the_sample_of_a_thin_slide(tmp_path: Path) -> None:
    write_array(tmp_path / "slide.tif", np.full((1, 3000, 3), 150, np.uint8), settings=SHARP)
    histogram = sample_slide(tmp_path / "slide.tif", tile=SIDE)
    assert histogram.pixels == 3000


def test_the_seed_decides(slide: Path) -> None:
    def sample(seed: int) -> ColorHistogram:
        return sample_slide(slide, max_pixels=10 * SIDE**2, max_glass_pixels=5 * SIDE**2, tile=SIDE, seed=seed)

    assert sample(0) == sample(0)
    assert sample(1) == sample(1)
    assert sample(0) != sample(1)
    assert sample(1).provenance["seed"] == 1


@pytest.mark.parametrize("options", [{"max_pixels": 10 * SIDE**2, "seed": 3}, {}])
def test_the_number_of_workers_does_not(options: dict[str, int], slide: Path) -> None:
    first = sample_slide(slide, tile=SIDE, workers=1, **options)
    for workers in (2, 5, 9):
        other = sample_slide(slide, tile=SIDE, workers=workers, **options)
        assert other == first
        assert other.provenance == first.provenance


def test_what_the_histogram_says_of_itself(slide: Path) -> None:
    histogram = sample_slide(slide, max_pixels=10 * SIDE**2, tile=SIDE, seed=4)
    assert histogram.icc_profile == srgb_profile()
    facts = dict(histogram.provenance)
    assert facts.pop("of_tissue_tiles") > 10
    assert facts.pop("glass_tiles") > 10
    assert facts == {"tissue_tiles": 10, "tile": SIDE, "seed": 4}  # and not the file's name


@pytest.mark.parametrize("options", [{"max_pixels": 0}, {"max_pixels": -1}, {"max_glass_pixels": -1}, {"tile": 4}])
def test_impossible_bounds(options: dict[str, int], slide: Path) -> None:
    with pytest.raises(InputError):
        sample_slide(slide, **options)


def test_a_negative_seed_is_an_input_error(slide: Path) -> None:
    with pytest.raises(InputError, match="seed"):
        sample_slide(slide, max_pixels=SIDE**2, tile=SIDE, seed=-1)


def test_a_path_and_an_open_slide_give_the_same(slide: Path) -> None:
    with open_slide(slide) as opened:
        assert sample_slide(opened, tile=SIDE) == sample_slide(str(slide), tile=SIDE)
        opened.read_region((0, 0), 0, (4, 4))  # still open
    assert ColorHistogram.from_slide(slide, tile=SIDE) == sample_slide(slide, tile=SIDE)


def test_a_missing_slide(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="does not exist"):
        sample_slide(tmp_path / "slide.tif")


# ---- how a slide that is named is opened ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide in wider colours than sRGB, of 12 x 16 tiles."""
    path = tmp_path_factory.mktemp("wide") / "slide.tif"
    plain: dict[str, Any] = {"photometric": "rgb", "compression": "lzw", "tile": (SIDE, SIDE)}
    tifffile.imwrite(path, phantom.image, iccprofile=matrix_profile(), **plain)
    return path


def test_a_slide_that_is_named_is_converted_when_asked(wide: Path) -> None:
    with open_slide(wide, icc="srgb") as opened:
        converted, tiles = sample_slide(opened, tile=SIDE), sample_tiles(opened, 5, SIDE)
    assert sample_slide(wide, tile=SIDE, icc="srgb") == converted
    assert sample_slide(wide, tile=SIDE) != converted
    assert ColorHistogram.from_slide(wide, tile=SIDE, icc="srgb") == converted
    np.testing.assert_array_equal(sample_tiles(wide, 5, SIDE, icc="srgb"), tiles)
    assert not np.array_equal(sample_tiles(wide, 5, SIDE), tiles)


@pytest.mark.parametrize("on_error", ["skip", "fill"])
def test_damage_in_a_slide_that_is_named_is_not_counted_when_asked(
    on_error: OnError, wide: Path, phantom: Phantom, tmp_path: Path
) -> None:
    path = tmp_path / "slide.tif"
    data = bytearray(wide.read_bytes())
    with tifffile.TiffFile(wide) as tiff:
        places = list(zip(tiff.pages.first.dataoffsets, tiff.pages.first.databytecounts, strict=True))
    tissue, glass = (grid.ravel() for grid in find_tissue(open_slide(wide), SIDE))
    assert (tissue | glass).all()  # so all of it is counted
    bad = np.flatnonzero(tissue)[[3, 20]]
    for number in bad:
        offset, count = places[number]
        data[offset + 16 : offset + count] = bytes(count - 16)
    path.write_bytes(data)
    with pytest.raises(SlideError, match="is damaged in the tile at"):
        sample_slide(path, tile=SIDE)
    with pytest.raises(SlideError, match="is damaged in the tile at"):
        sample_tiles(path, 200, SIDE)
    places_told = ", ".join(f"({x}, {y})" for y, x in (np.array(divmod(number, 16)) * SIDE for number in bad))
    with pytest.warns(SlideWarning, match=re.escape(f"2 of level 0 at {places_told}")):
        histogram = sample_slide(path, tile=SIDE, on_error=on_error)
    with open_slide(wide) as whole:
        lost = [whole.read_region((number % 16 * SIDE, number // 16 * SIDE), 0, (SIDE, SIDE))[0] for number in bad]
    lost_counts = replace(ColorHistogram.from_image(np.concatenate(lost)), icc_profile=histogram.icc_profile)
    restored, everything = histogram + lost_counts, sample_slide(wide, tile=SIDE)
    np.testing.assert_array_equal(restored.codes, everything.codes)
    np.testing.assert_array_equal(restored.counts, everything.counts)
    with pytest.warns(SlideWarning, match="2 of level 0"):
        tiles = sample_tiles(path, 200, SIDE, on_error=on_error)
    assert not any(np.array_equal(tile, gone) for tile in tiles for gone in lost)
    for offset, count in places:
        data[offset + 16 : offset + count] = bytes(count - 16)
    path.write_bytes(data)
    with pytest.raises(SlideError, match=r"nothing of slide\.tif could be read"):
        sample_slide(path, tile=SIDE, on_error=on_error)


@pytest.mark.parametrize("option", ["icc", "on_error"])
def test_no_such_way_to_open_a_slide(option: str, slide: Path) -> None:
    wrong: dict[str, Any] = {option: "maybe"}
    for sample in (lambda: sample_slide(slide, **wrong), lambda: sample_tiles(slide, 1, SIDE, **wrong)):
        with pytest.raises(InputError, match=f"got {option}='maybe'"):
            sample()


def test_progress_is_told_in_this_thread_and_may_end_the_sample(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restain.slides.sample._TOLD", 0.001)
    count: Any = HistogramBuilder.add
    counted: list[None] = []
    told: list[tuple[int, int, int]] = []

    def slow(*arguments: Any) -> None:
        time.sleep(0.01)
        count(*arguments)
        counted.append(None)

    def progress(done: int, total: int) -> None:
        told.append((threading.get_ident(), done, total))
        if done >= 10:
            raise KeyboardInterrupt

    monkeypatch.setattr(HistogramBuilder, "add", slow)
    with pytest.raises(KeyboardInterrupt):
        sample_slide(slide, tile=SIDE, workers=3, progress=progress)
    assert {place for place, _, _ in told} == {threading.get_ident()}
    assert {total for _, _, total in told} == {12 * 16}  # tissue and glass are the whole slide
    done = [done for _, done, _ in told]
    assert done == sorted(done)
    assert 10 <= done[-1] <= len(counted) < 12 * 16


# ---- padding ----------------------------------------------------------------------------------------------------


def holey_pyramid(path: Path, image: RGB8, hole: NDArray[np.bool_]) -> None:
    """Tiles that the hole covers are missing."""
    write_with_holes(
        path, image, {(row, column) for row, column in np.argwhere(by_tile(hole, SIDE) == 1)}, settings=SHARP
    )


def holey_image(path: Path, image: RGB8, hole: NDArray[np.bool_]) -> None:
    Image.fromarray(np.dstack([image, np.where(hole, 0, 255).astype(np.uint8)])).save(path, format="PNG")


@pytest.mark.parametrize("tile", [SIDE, 100])
@pytest.mark.parametrize("write", [holey_pyramid, holey_image])
def test_padding_is_not_counted(
    write: Callable[[Path, RGB8, NDArray[np.bool_]], None], tile: int, phantom: Phantom, tmp_path: Path
) -> None:
    hole = np.zeros((768, 1024), np.bool_)
    hole[: 4 * SIDE, : 6 * SIDE] = True
    hole[8 * SIDE :, 3 * SIDE : 5 * SIDE] = True
    write(tmp_path / "slide.tif", phantom.image, hole)
    histogram = sample_slide(tmp_path / "slide.tif", tile=tile)
    assert histogram.pixels == (~hole).sum()
    assert 0xFFFFFF not in histogram.codes  # the glass of this phantom is darker: exact white would be padding
    shown = np.count_nonzero(by_tile(~hole, tile))
    assert histogram.provenance["of_tissue_tiles"] + histogram.provenance["glass_tiles"] == shown
    white = find_white_point(histogram)
    np.testing.assert_allclose(white.level, (232, 236, 240), atol=1)


def test_a_slide_of_padding_alone(tmp_path: Path) -> None:
    holey_pyramid(tmp_path / "slide.tif", np.zeros((128, 128, 3), np.uint8), np.ones((128, 128), np.bool_))
    histogram = sample_slide(tmp_path / "slide.tif", tile=SIDE)
    assert len(histogram) == 0
    assert histogram.provenance["glass_tiles"] == histogram.provenance["tissue_tiles"] == 0
    with open_slide(tmp_path / "slide.tif") as opened:
        assert isinstance(opened, Slide)
        assert not any(grid.any() for grid in find_tissue(opened, SIDE))
