"""Methods that look at neighbourhoods, wherever slides and images are normalized: promise 1, padding, what is told."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

import restain
from restain.color.images import RGB8
from restain.describe import describe_path
from restain.errors import InputError
from restain.evaluation.benchmark import Sample, evaluate
from restain.evaluation.benchmark.contenders import Contender
from restain.evaluation.comparison import compare_slides
from restain.evaluation.metrics.seams import seam_score
from restain.methods import METHODS
from restain.methods.windows import apply_windows
from restain.phantom import Scanner, make_phantom
from restain.slides.batch import BatchSettings, estimate_together, normalize_file
from restain.slides.pipeline import describe, normalize_slide, write_mapped
from restain.slides.reader import open_slide
from restain.slides.sample import estimate_slide, sample_mapped, sample_slide, sample_tiles
from restain.slides.virtual import NormalizedSlide
from restain.slides.writer import PyramidSettings, encode_tile, write_array

from ..methods.blurring import Blur, BlurAppearance, Blurring
from .making import SMALL, raw_tiles, write_with_holes


@pytest.fixture(scope="module")
def blur() -> Blur:
    return Blur(tilt=8.0).fit(make_phantom(200, 200, seed=8, scanner=Scanner(white=(242.0, 240.0, 241.0))).image)


@pytest.fixture(scope="module")
def holey(tissue: RGB8, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of which only the two middle columns of tiles, and one tile more, were scanned."""
    path = tmp_path_factory.mktemp("holey") / "slide.tif"
    missing = {(row, column) for row in range(5) for column in (0, 1, 2, 5, 6)} - {(0, 0)}
    write_with_holes(path, tissue, missing)
    return path


def encoded(image: RGB8, pyramid: PyramidSettings) -> list[bytes]:
    side = pyramid.tile
    return [
        encode_tile(image[y : y + side, x : x + side], pyramid).data
        for y in range(0, image.shape[0], side)
        for x in range(0, image.shape[1], side)
    ]


def description(path: Path) -> dict[str, Any]:
    with tifffile.TiffFile(path) as tiff:
        facts = json.loads(tiff.pages[0].description)
    assert isinstance(facts, dict)
    return facts


def pixels_of(path: Path) -> RGB8:
    with open_slide(path) as slide:
        return slide.read_region((0, 0), 0, slide.dimensions)[0]


# ---- slides written: promise 1 ----------------------------------------------------------------------------------


@pytest.mark.parametrize("tile", [16, 64, 128, 512])
def test_tiles_joined_are_the_whole_mapped(tile: int, pyramid: Path, blur: Blur, tmp_path: Path) -> None:
    pyramid_settings = PyramidSettings(tile=tile)
    result = normalize_slide(pyramid, tmp_path / "out.tif", blur, settings=pyramid_settings)
    mapped = apply_windows(pixels_of(pyramid), blur.pixel_map(result.appearance))
    assert list(raw_tiles(tmp_path / "out.tif")) == encoded(mapped, pyramid_settings)


@pytest.mark.parametrize("background", ["match", "keep", "white", "none"])
def test_backgrounds(background: Any, pyramid: Path, tmp_path: Path) -> None:
    blur = Blur(background=background).fit(make_phantom(200, 200, seed=8).image)
    result = normalize_slide(pyramid, tmp_path / "out.tif", blur, settings=SMALL)
    mapped = blur.transform(pixels_of(pyramid), result.appearance)
    assert list(raw_tiles(tmp_path / "out.tif")) == encoded(mapped, SMALL)


@settings(max_examples=25)
@given(
    height=st.integers(1, 140),
    width=st.integers(1, 140),
    grid=st.sampled_from([(64, 16), (32, 8), (17, 0), (96, 48)]),
    tile=st.sampled_from([16, 32, 80]),
    workers=st.integers(1, 3),
)
def test_tiles_of_any_grid_and_size(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, grid: tuple[int, int], tile: int, workers: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    image = np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(image).save(folder / "i.png")
    pyramid_settings = PyramidSettings(tile=tile)
    with open_slide(folder / "i.png") as slide:
        write_mapped(
            slide,
            folder / "o.tif",
            Blurring(*grid, tilt=9),
            icc_profile=None,
            description="",
            settings=pyramid_settings,
            overwrite=False,
            workers=workers,
            report=lambda *_: None,
        )
    mapped = apply_windows(image, Blurring(*grid, tilt=9))
    assert list(raw_tiles(folder / "o.tif")) == encoded(mapped, pyramid_settings)


def test_the_file_is_the_same_for_any_number_of_workers(svs: Path, blur: Blur, tmp_path: Path) -> None:
    for workers in (1, 2, 5):
        normalize_slide(svs, tmp_path / f"{workers}.tif", blur, settings=SMALL, workers=workers)
    first = (tmp_path / "1.tif").read_bytes()
    assert (tmp_path / "2.tif").read_bytes() == first
    assert (tmp_path / "5.tif").read_bytes() == first


def test_padding_stays_padding(holey: Path, blur: Blur, tmp_path: Path) -> None:
    result = normalize_slide(holey, tmp_path / "out.tif", blur, settings=SMALL)
    before, after = list(raw_tiles(holey)), list(raw_tiles(tmp_path / "out.tif"))
    assert [not tile for tile in after] == [not tile for tile in before]
    assert 0 < sum(not tile for tile in after) < len(after)
    with open_slide(holey) as slide:
        source, known = slide.read_region((0, 0), 0, slide.dimensions)
    assert known is not None
    mapped = apply_windows(source, blur.pixel_map(result.appearance))
    mapped[~known] = 255
    wanted = encoded(mapped, SMALL)
    assert [tile for tile in after if tile] == [wanted[i] for i, tile in enumerate(after) if tile]


def test_progress_reaches_its_end(pyramid: Path, blur: Blur, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    normalize_slide(pyramid, tmp_path / "o.tif", blur, settings=SMALL, progress=lambda *now: told.append(now))
    assert told[-1] == ("normalize", 301 * 423, 301 * 423)
    assert [done for _, done, _ in told[1:]] == sorted(done for _, done, _ in told[1:])


# ---- seams ------------------------------------------------------------------------------------------------------


def worst_seam(source: RGB8, output: RGB8, window_map: Blurring) -> float:
    """Where windows begin, end, and weigh the same."""
    step, margin = window_map.side - window_map.overlap, window_map.overlap // 2
    places = [step - margin, step, step + margin]
    return max(seam_score(source, output, tile=step, origin=(at, at)) for at in places)


def test_no_seams_on_a_phantom(tmp_path: Path) -> None:
    blur = Blur(side=128, overlap=32, tilt=6.0).fit("he")
    image = make_phantom(700, 800, seed=11, scanner=Scanner(noise=1.0)).image
    write_array(tmp_path / "slide.tif", image, settings=PyramidSettings(tile=128, quality=95))
    with NormalizedSlide(tmp_path / "slide.tif", blur) as slide:
        output = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]
        window_map = blur.pixel_map(slide.appearance)
    assert isinstance(window_map, Blurring)
    source = pixels_of(tmp_path / "slide.tif")
    assert worst_seam(source, output, window_map) <= 1.05
    # The score would have seen them: the same windows, joined without blending.
    hard = Blurring(128, 0, rule=window_map.rule, shift=window_map.shift, tilt=6.0)
    assert worst_seam(source, apply_windows(source, hard), hard) > 1.5


def test_no_seams_on_a_real_slide(data: Path, tmp_path: Path) -> None:
    path = data / "wsi/CMU-1-Small-Region.svs"
    if not path.is_file():
        pytest.skip(f"no {path.name} in {data}")
    blur = Blur(side=128, overlap=32, tilt=6.0).fit("he")
    with NormalizedSlide(path, blur) as slide:
        size = (1500, 1500)
        output = np.asarray(slide.read_region((0, 0), 0, size))[..., :3]
        window_map = blur.pixel_map(slide.appearance)
    with open_slide(path) as slide:
        source, _ = slide.read_region((0, 0), 0, size)
    assert isinstance(window_map, Blurring)
    assert worst_seam(source, output, window_map) <= 1.05


# ---- NormalizedSlide --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def normalized(pyramid: Path, blur: Blur) -> Iterator[NormalizedSlide]:
    with NormalizedSlide(pyramid, blur) as slide:
        yield slide


@settings(max_examples=40)
@given(level=st.integers(0, 3), x=st.integers(-50, 440), y=st.integers(-50, 320), w=st.integers(1, 200), h=st.just(77))
def test_regions_are_cut_from_the_whole(
    normalized: NormalizedSlide, pyramid: Path, blur: Blur, level: int, x: int, y: int, w: int, h: int
) -> None:
    with open_slide(pyramid) as slide:
        source, _ = slide.read_region((0, 0), level, slide.level_dimensions[level])
    whole = apply_windows(source, blur.pixel_map(normalized.appearance))
    scale = normalized.level_downsamples[level]
    region = np.asarray(normalized.read_region((x, y), level, (w, h)))
    wanted = np.zeros((h, w, 4), np.uint8)
    left, top = round(x / scale), round(y / scale)
    y0, x0 = max(top, 0), max(left, 0)
    inside = whole[y0 : max(top + h, 0), x0 : max(left + w, 0)]
    target = wanted[y0 - top : y0 - top + inside.shape[0], x0 - left : x0 - left + inside.shape[1]]
    target[...] = np.dstack([inside, np.full(inside.shape[:2], 255, np.uint8)])
    if level == 0:
        np.testing.assert_array_equal(region, wanted)
    else:
        # OpenSlide resamples where a level's pixels do not begin at a whole level-0 pixel, and fades out at the edges.
        there = wanted[..., 3] > 0
        assert (region[ndimage.binary_erosion(there, iterations=2), 3] >= 254).all()
        assert (region[~ndimage.binary_dilation(there, iterations=2)] == 0).all()
        difference = np.abs(region[..., :3].astype(np.int64) - wanted[..., :3])[ndimage.binary_erosion(there)]
        assert not difference.size or difference.mean() < 2


def test_what_is_read_is_what_is_written(pyramid: Path, blur: Blur, tmp_path: Path) -> None:
    result = normalize_slide(pyramid, tmp_path / "out.tif", blur, settings=SMALL)
    with NormalizedSlide(pyramid, blur) as slide:
        assert slide.appearance == result.appearance
        pixels = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))
    assert (pixels[..., 3] == 255).all()
    assert list(raw_tiles(tmp_path / "out.tif")) == encoded(pixels[..., :3], SMALL)


def test_threads_read_the_same(normalized: NormalizedSlide) -> None:
    whole = np.asarray(normalized.read_region((0, 0), 0, normalized.dimensions))

    def job(index: int) -> bool:
        x, y = 37 * (index % 8), 29 * (index % 7)
        return np.array_equal(normalized.read_region((x, y), 0, (100, 90)), whole[y : y + 90, x : x + 100])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(job, range(30)))


def test_padding_is_transparent(holey: Path, blur: Blur) -> None:
    with NormalizedSlide(holey, blur) as slide, open_slide(holey) as plain:
        pixels = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))
        _, known = plain.read_region((0, 0), 0, plain.dimensions)
        assert known is not None
        np.testing.assert_array_equal(pixels[..., 3] == 255, known)
        assert (pixels[~known] == 0).all()
        assert np.asarray(slide.read_region((5000, 0), 0, (9, 9))).max() == 0
        slide.get_thumbnail((60, 60))


def test_there_is_no_colour_map(normalized: NormalizedSlide, blur: Blur) -> None:
    assert not hasattr(normalized, "color_map")
    with pytest.raises(InputError, match="distill"):
        blur.color_map(normalized.appearance)
    with pytest.raises(InputError, match="distill"):
        blur.map_colors(np.zeros((1, 3)), normalized.appearance)


def test_the_scanner_s_thumbnail_is_normalized(svs: Path, blur: Blur) -> None:
    with NormalizedSlide(svs, blur) as slide, open_slide(svs) as plain:
        wanted = apply_windows(plain.associated_images["thumbnail"](), blur.pixel_map(slide.appearance))
        np.testing.assert_array_equal(np.asarray(slide.associated_images["thumbnail"])[..., :3], wanted)


# ---- images -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(301, 423), (1, 1), (3, 200), (64, 64)])
def test_an_image_is_what_transform_gives(height: int, width: int, tissue: RGB8, blur: Blur, tmp_path: Path) -> None:
    image = np.ascontiguousarray(tissue[:height, :width])
    Image.fromarray(image).save(tmp_path / "i.png")
    result = normalize_file(tmp_path / "i.png", tmp_path / "o.png", blur, BatchSettings())
    output = np.asarray(Image.open(tmp_path / "o.png"))
    np.testing.assert_array_equal(output, blur.transform(image))
    np.testing.assert_array_equal(output, apply_windows(image, blur.pixel_map(result.appearance)))


def test_an_image_that_is_wanted_whole_is_mapped_whole(tissue: RGB8, blur: Blur, monkeypatch: Any) -> None:
    whole = np.full((64, 64, 3), 7, np.uint8)
    monkeypatch.setattr(Blurring, "whole", lambda self, image: whole if len(image) <= self.side else None)
    np.testing.assert_array_equal(blur.transform(tissue[:64, :64]), whole)
    assert blur.transform(tissue[:65, :64]).shape == (65, 64, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_transparency_of_an_image(suffix: str, tissue: RGB8, blur: Blur, tmp_path: Path) -> None:
    rgba = np.dstack([tissue, np.full(tissue.shape[:2], 255, np.uint8)])
    rgba[:100, :150, 3], rgba[100:200, :150, 3] = 0, 120
    rgba[:100, :150, :3] = (0, 200, 0)  # what nobody sees must not bleed into what is seen
    Image.fromarray(rgba).save(tmp_path / "i.png")
    result = normalize_file(tmp_path / "i.png", tmp_path / f"o{suffix}", blur, BatchSettings())
    output = np.asarray(Image.open(tmp_path / f"o{suffix}"))
    if suffix == ".jpg":
        assert output.shape == tissue.shape
        assert output[:92, :142].min() > 250  # padding stays white
        return
    np.testing.assert_array_equal(output[..., 3], rgba[..., 3])
    np.testing.assert_array_equal(output[:100, :150], rgba[:100, :150])
    seen = rgba[..., :3].copy()
    seen[:100, :150] = 255
    mapped = apply_windows(seen, blur.pixel_map(result.appearance))
    np.testing.assert_array_equal(output[100:, :, :3], mapped[100:])
    with NormalizedSlide(tmp_path / "i.png", blur, appearance=result.appearance) as slide:
        read = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))
    np.testing.assert_array_equal(read[rgba[..., 3] > 0], output[rgba[..., 3] > 0])


def test_transform_leaves_padding_of_an_array(tissue: RGB8, blur: Blur) -> None:
    rgba = np.dstack([tissue, np.full(tissue.shape[:2], 255, np.uint8)])
    rgba[:50, :50, 3] = 0
    assert (blur.transform(rgba)[:50, :50] == 255).all()


# ---- what is told -----------------------------------------------------------------------------------------------


def test_a_slide_s_statistics_are_frozen_and_told(pyramid: Path, blur: Blur, tmp_path: Path) -> None:
    result = normalize_slide(pyramid, tmp_path / "out.tif", blur, settings=SMALL, seed=3)
    facts = description(tmp_path / "out.tif")
    assert facts["appearance"]["statistics"] == "slide"
    assert facts["sample"]["statistics_tiles"] == 5
    assert facts["sample"]["statistics_side"] == 48
    assert facts["sample"]["seed"] == 3
    # A thousand numbers would be there in every output.
    assert not {"norms", "icc_profile"} & set(facts["appearance"])
    assert len(json.dumps(facts["appearance"])) < 500
    tiles = sample_tiles(pyramid, 5, 48, seed=3)
    assert result.appearance == blur.estimate(sample_slide(pyramid, seed=3), tiles=tiles)


def test_an_image_has_its_own_statistics_and_a_folder_shares_them(tissue: RGB8, blur: Blur, tmp_path: Path) -> None:
    pairs = []
    for index in range(3):
        image = np.ascontiguousarray(tissue[90 * index : 90 * index + 100, :200])
        Image.fromarray(image).save(tmp_path / f"{index}.png")
        pairs.append((tmp_path / f"{index}.png", tmp_path / f"out{index}.png"))
    alone = [normalize_file(source, output, blur, BatchSettings()).appearance for source, output in pairs]
    assert [appearance.statistics for appearance in alone] == ["image"] * 3
    facts = json.loads(Image.open(pairs[0][1]).text["Description"])
    assert facts["appearance"]["statistics"] == "image"
    settings = BatchSettings(overwrite=True)
    together, failed = estimate_together([source for source, _ in pairs], blur, settings)
    assert together.statistics == "slide"
    assert failed == {}
    assert estimate_together([source for source, _ in pairs], blur, settings) == (together, {})
    normalize_file(*pairs[0], blur, settings, appearance=together)
    first = np.asarray(Image.open(pairs[0][1]))
    np.testing.assert_array_equal(first, blur.transform(Image.open(pairs[0][0]), together))


def test_a_slide_without_tissue_has_no_tiles(blur: Blur, tmp_path: Path) -> None:
    glass = np.clip(np.random.default_rng(0).normal(240, 1, (200, 200, 3)), 0, 255).astype(np.uint8)
    write_array(tmp_path / "glass.tif", glass, settings=SMALL)
    result = normalize_slide(tmp_path / "glass.tif", tmp_path / "out.tif", blur, settings=SMALL)
    assert isinstance(result.appearance, BlurAppearance)
    assert result.appearance.statistics == "image"  # as this normalizer has it for no tiles
    assert description(tmp_path / "out.tif")["sample"]["statistics_tiles"] == 0
    assert blur.reference_ is not None
    # Glass becomes the reference's, seen by no network.
    assert np.abs(pixels_of(tmp_path / "out.tif").mean(axis=(0, 1)) - blur.reference_.white_point).max() < 1.5


def test_an_estimate_of_colours_alone_takes_no_tiles(pyramid: Path, fitted: restain.Macenko, tmp_path: Path) -> None:
    normalize_slide(pyramid, tmp_path / "out.tif", fitted, settings=SMALL)
    assert "statistics_tiles" not in description(tmp_path / "out.tif")["sample"]
    tiles = sample_tiles(pyramid, 2, 32)
    histogram = sample_slide(pyramid)
    assert fitted.estimate(histogram, tiles=tiles) == fitted.estimate(histogram)


def test_it_is_saved_and_described(blur: Blur, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "blur", Blur)
    blur.save(tmp_path / "blur.safetensors")
    assert restain.load(tmp_path / "blur.safetensors") == blur
    facts = describe_path(str(tmp_path / "blur.safetensors"))
    assert facts["method"] == "blur"
    assert "norms" not in facts["reference_appearance"]
    assert blur.reference_ is not None
    assert describe(blur, blur.reference_)["settings"]["tilt"] == 8.0


# ---- evaluation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimate", ["image", "folder"])
def test_it_is_evaluated(estimate: Any, tissue: RGB8, blur: Blur, tmp_path: Path) -> None:
    samples = []
    for index in range(2):
        Image.fromarray(tissue[100 * index : 100 * index + 120, :200]).save(tmp_path / f"{index}.png")
        samples.append(Sample(f"s{index}", tmp_path / f"{index}.png"))
    contenders = [Contender("raw", None), Contender("blur", blur)]
    found = evaluate(samples, contenders, ("toolkit",), estimate=estimate)
    assert found.failures == ()
    assert {row.method for row in found.rows} == {"raw", "blur"}
    source = samples[0].read_source()
    if estimate == "image":
        wanted = blur.transform(source)
    else:
        appearance = found.appearances["blur"]
        assert isinstance(appearance, BlurAppearance)
        assert appearance.statistics == "slide"
        wanted = blur.transform(source, appearance)
    np.testing.assert_array_equal(found.output(contenders[1], source), wanted)


def test_it_is_compared(pyramid: Path, svs: Path, blur: Blur, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Glass goes to where the target's is; the colours are those of the slide that would be written."""
    monkeypatch.setitem(METHODS, "blur", Blur)
    target = make_phantom(300, 300, seed=4, scanner=Scanner(white=(243.0,) * 3, noise=1.0)).image
    write_array(tmp_path / "target.tif", target, settings=SMALL)
    comparison = compare_slides(pyramid, tmp_path / "target.tif", ["blur"])
    assert comparison.distances["raw"].glass > 5
    assert comparison.distances["blur"].glass < 1.5
    assert comparison.thumbnails["blur"].shape == comparison.thumbnails["raw"].shape

    # The colours counted are those of the picture that would be written, but for the blending of windows.
    fitted = Blur().fit(sample_slide(tmp_path / "target.tif"))
    with open_slide(pyramid) as slide:
        appearance, _ = estimate_slide(slide, fitted, sample_slide(slide))
        window_map = fitted.pixel_map(appearance)
        assert isinstance(window_map, Blurring)
        counted = sample_mapped(slide, window_map)
    whole = apply_windows(pixels_of(pyramid), window_map)
    assert counted.pixels == whole.shape[0] * whole.shape[1]
    mean = (counted.colors * counted.counts[:, None]).sum(axis=0) / counted.pixels
    np.testing.assert_allclose(mean, whole.mean(axis=(0, 1)), atol=0.5)


# ---- sampling tiles ---------------------------------------------------------------------------------------------


def places(tiles: list[RGB8], image: RGB8, side: int) -> list[tuple[int, int]]:
    """Where each tile is on its grid."""
    cells: dict[bytes, tuple[int, int]] = {
        image[y : y + side, x : x + side].tobytes(): (x, y)
        for y in range(0, image.shape[0] - side + 1, side)
        for x in range(0, image.shape[1] - side + 1, side)
    }
    return [cells[tile.tobytes()] for tile in tiles]


@pytest.fixture
def patchy(tmp_path: Path) -> tuple[Path, RGB8]:
    """Glass, with tissue in the cells of 50 pixels (2, 1) and (4, 3) and a third of (0, 0)."""
    generator = np.random.default_rng(0)
    image = np.clip(generator.normal(240, 1, (230, 320, 3)), 0, 255).astype(np.uint8)
    for x, y, w in ((100, 50, 50), (200, 150, 50), (0, 0, 16)):
        image[y : y + 50, x : x + w] = generator.integers(60, 160, (50, w, 3))
    Image.fromarray(image).save(tmp_path / "patchy.png")
    return tmp_path / "patchy.png", image


def test_tiles_show_tissue_richest_first(patchy: tuple[Path, RGB8]) -> None:
    path, image = patchy
    assert sorted(places(sample_tiles(path, 2, 50), image, 50)) == [(100, 50), (200, 150)]
    assert places(sample_tiles(path, 9, 50), image, 50)[2:] == [(0, 0)]
    assert sample_tiles(path, 0, 50) == []


def test_tiles_are_chosen_by_the_seed_alone(pyramid: Path) -> None:
    image = pixels_of(pyramid)

    def chosen(seed: int, workers: int | None = None) -> list[tuple[int, int]]:
        tiles = sample_tiles(pyramid, 4, 32, seed=seed, workers=workers)
        assert all(tile.shape == (32, 32, 3) for tile in tiles)
        return places(tiles, image, 32)

    assert chosen(1) == chosen(1, 1) == chosen(1, 5)
    assert len({tuple(chosen(seed)) for seed in range(6)}) > 3
    assert all(len(set(chosen(seed))) == 4 for seed in range(6))


def test_tiles_hold_no_padding(holey: Path) -> None:
    image = pixels_of(holey)
    tiles = sample_tiles(holey, 100, 32)
    assert len(tiles) > 10
    assert all(x in (192, 224, 256, 288) or (x < 64 and y < 64) for x, y in places(tiles, image, 32))


def test_a_slide_smaller_than_a_tile_is_reflected(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(40, 160, (20, 30, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "i.png")
    (tile,) = sample_tiles(tmp_path / "i.png", 3, 48)
    np.testing.assert_array_equal(tile, np.pad(image, ((0, 28), (0, 18), (0, 0)), mode="reflect"))


@pytest.mark.parametrize("wrong", [{"count": -1}, {"side": 0}, {"seed": -1}])
def test_what_cannot_be_sampled_is_refused(wrong: dict[str, int], pyramid: Path) -> None:
    with pytest.raises(InputError, match="wanted"):
        sample_tiles(pyramid, **({"count": 1, "side": 8} | wrong))
