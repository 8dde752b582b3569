"""Systems on slides: the same picture however it is cut (promise 1), and no seams where windows meet.

What is asked of a trained network, that the seam score of its output over the source's is at most 1.05, says nothing of
a network with random weights: it makes textures of its own, in which its source's pixels do not count. What can be
asked of any is that across the borders of windows its picture changes as it does beside them.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

torch = pytest.importorskip("torch")

from restain.errors import SlideError, SlideWarning  # noqa: E402  (after the skip)
from restain.evaluation.metrics.seams import seam_ratio  # noqa: E402
from restain.methods.windows import apply_region, apply_windows  # noqa: E402
from restain.phantom import Scanner, make_phantom  # noqa: E402
from restain.slides.pipeline import normalize_slide  # noqa: E402
from restain.slides.reader import open_slide  # noqa: E402
from restain.slides.sample import sample_slide, sample_tiles  # noqa: E402
from restain.slides.writer import PyramidSettings, encode_tile, write_array  # noqa: E402
from restain.systems import SYSTEMS  # noqa: E402
from restain.systems.windows import pad_to_multiple, to_tensor  # noqa: E402

from ..icc_profiles import matrix_profile  # noqa: E402
from ..slides.making import raw_tiles  # noqa: E402
from .small import CONFIGS, STATISTICS, WHITE, make, trained  # noqa: E402


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Tissue with odd sides, larger than a window."""
    return make_phantom(531, 603, seed=3, scanner=Scanner(white=(243.0, 241.0, 240.0), noise=1.0)).image


@pytest.fixture(scope="module")
def slide(pixels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "tissue.tif"
    write_array(path, pixels, settings=PyramidSettings(tile=256), mpp=(0.5, 0.5))
    return path


@pytest.mark.parametrize("name", SYSTEMS)
def test_tiles_written_are_the_whole_mapped_in_memory(name: str, slide: Path, tmp_path: Path) -> None:
    system, settings = trained(name), PyramidSettings(tile=512)
    result = normalize_slide(slide, tmp_path / "out.tif", system, settings=settings, workers=2)
    assert result.appearance.statistics == STATISTICS[name]
    with open_slide(slide) as opened:
        whole, _ = opened.read_region((0, 0), 0, opened.dimensions)
    mapped = system.transform(whole, result.appearance)
    wanted = [
        encode_tile(mapped[y : y + 512, x : x + 512], settings).data
        for y in range(0, mapped.shape[0], 512)
        for x in range(0, mapped.shape[1], 512)
    ]
    assert raw_tiles(tmp_path / "out.tif") == wanted
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        facts = json.loads(tiff.pages[0].description)
    assert facts["method"] == name
    assert facts["settings"]["config"]["channels"] == CONFIGS[name]["channels"]
    assert facts["appearance"]["statistics"] == STATISTICS[name]
    assert facts["reference"]["training"]["training_data_license"] == "CC0-1.0"
    assert "norm_statistics" not in facts["appearance"]  # thousands of numbers


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_region_is_a_part_of_the_whole(name: str, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its corners, and across the borders of four windows."""
    system, pixels = trained(name), pixels[:300, :340]
    monkeypatch.setattr(type(system), "window", 256)
    appearance = system.estimate_image(pixels)
    window_map = system.pixel_map(appearance)
    whole = system.transform(pixels, appearance)
    height, width = pixels.shape[:2]

    def read(x: int, y: int, wide: int, high: int) -> np.ndarray:
        return pixels[y : y + high, x : x + wide]

    for x, y, wide, high in ((0, 0, 64, 64), (110, 120, 140, 101), (277, 269, 63, 31)):
        part = apply_region(read, (width, height), (x, y, wide, high), window_map)
        np.testing.assert_array_equal(part, whole[y : y + high, x : x + wide])


def from_afar(image: np.ndarray, side: int = 8) -> np.ndarray:
    """Means of squares: an untrained network covers seams with its own texture, and these bare them again."""
    rows, columns = image.shape[0] // side, image.shape[1] // side
    squares = image[: rows * side, : columns * side].reshape(rows, side, columns, side, 3)
    return np.rint(squares.mean(axis=(1, 3))).astype(np.uint8)


@pytest.fixture(scope="module")
def cloth() -> np.ndarray:
    """A texture that is the same everywhere but for its contrast and brightness, so that one line is as good as another
    to compare with, and yet each window has statistics of its own."""
    generator = np.random.default_rng(0)
    texture = ndimage.gaussian_filter(generator.normal(0, 1, (640, 640, 3)), (5, 5, 0))
    contrast = np.linspace(10, 45, 640)[None, :, None] / texture.std()
    brightness = np.array([170, 120, 160]) + np.linspace(-40, 40, 640)[:, None, None]
    levels = brightness + contrast * texture + generator.normal(0, 1, texture.shape)
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("name", "seed"), [("staingan", 1), ("stst", 2), ("stainnet", 2), ("nst", 0)])
def test_no_seams_where_windows_meet(name: str, seed: int, cloth: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Across the borders of windows a picture changes as it does beside them. Cut hard, with statistics of each window,
    it changes more."""
    system = trained(name, background="none", seed=seed)
    monkeypatch.setattr(type(system), "window", 256)
    window_map = system.pixel_map(system.estimate_image(cloth))
    made, step = from_afar(apply_windows(cloth, window_map)), (256 - 64) // 8
    borders = (4, 20)  # where windows end, and where they begin
    assert np.mean([seam_ratio(made, tile=step, origin=(border, border)) for border in borders]) <= 1.05
    if name != "stainnet":
        cut = system.pixel_map(system.estimate(cloth))
        cut.overlap = 0
        assert seam_ratio(from_afar(apply_windows(cloth, cut)), tile=256 // 8) > 1.3


def test_windows_are_what_the_network_makes_of_the_whole(pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """StainGAN's convolutions see 20 pixels or so: with frozen statistics, windows hardly differ from a single one as
    large as the image; with statistics of their own, they do."""
    system = trained("staingan", background="none")
    monkeypatch.setattr(type(system), "window", 192)
    frozen, own = system.estimate_image(pixels), system.estimate(pixels)
    height, width = pixels.shape[:2]
    with torch.inference_mode():
        padded = pad_to_multiple(to_tensor(pixels[None]), system.multiple)
        whole = system.inference_network(frozen)(padded)[0, :, :height, :width].permute(1, 2, 0).numpy() * 255
    # The image's own border is seen reflected by windows, and padded by the whole.
    inner = np.s_[48:-48, 48:-48]
    in_windows, by_themselves = (
        np.abs(apply_windows(pixels, system.pixel_map(appearance)) - whole)[inner] for appearance in (frozen, own)
    )
    assert in_windows.mean() < 0.1 * by_themselves.mean()
    assert np.quantile(in_windows, 0.5) <= 0.5  # rounding
    assert np.quantile(in_windows, 0.9) <= 1.5


def test_frozen_statistics_do_not_depend_on_glass_beside_the_tissue(pixels: np.ndarray) -> None:
    """An image with a wide margin of glass has the statistics of its tissue."""
    system = make("staingan", trainable=False).finish(WHITE, "glass", {})
    tissue = make_phantom(512, 512, seed=3, scanner=Scanner(noise=1.0)).image
    margin = np.clip(np.rint(np.random.default_rng(0).normal(243, 1, (512, 1536, 3))), 0, 255).astype(np.uint8)
    alone = system.estimate_image(np.concatenate([tissue, tissue[:, :256]], axis=1)).norm_statistics
    beside = system.estimate_image(np.concatenate([tissue, margin], axis=1)).norm_statistics
    assert alone is not None
    assert beside is not None
    first = slice(0, 4)  # of the first layer, which sees the pixels themselves
    assert np.abs(beside[1, first] / alone[1, first] - 1).max() < 0.5


def test_an_estimate_reads_a_path_as_the_slide_will_be_read(
    pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Colours and tiles alike are converted by the slide's profile, and taken where it is not damaged."""
    path, wide = tmp_path / "broken.tif", matrix_profile()
    options = {"photometric": "rgb", "tile": (64, 64), "compression": "lzw"}
    tifffile.imwrite(path, pixels[:192, :256], iccprofile=wide, **options)
    with tifffile.TiffFile(path) as handle:
        places = [(handle.pages.first.dataoffsets[n], handle.pages.first.databytecounts[n]) for n in (1, 6)]
    with path.open("r+b") as stream:
        for offset, count in places:
            stream.seek(offset + 16)
            stream.write(bytes(count - 16))
    system = trained("staingan")
    monkeypatch.setattr(type(system), "statistics_tiles", 4)
    monkeypatch.setattr(type(system), "statistics_side", 64)
    for source in (path, tmp_path):  # a slide, and a folder of one
        with pytest.raises(SlideError, match=r"broken\.tif is damaged in the tile"):
            system.estimate(source)
        found = {}
        for icc in ("keep", "srgb"):
            with pytest.warns(SlideWarning, match=r"2 of level 0 at \(64, 0\), \(128, 64\)"):
                found[icc] = system.estimate(source, icc=icc, on_error="skip")
            with open_slide(path, icc=icc, on_error="skip") as opened:
                seed = 1  # the first file's of a folder
                tiles = sample_tiles(opened, 4, 64, seed=seed)
                wanted = system.estimate(sample_slide(opened), tiles=tiles)
            assert len(tiles) == 4
            assert found[icc] == wanted
            assert found[icc].statistics == "slide"
        assert found["keep"].icc_profile == wide
        assert found["srgb"].icc_profile is None
        assert not np.array_equal(found["keep"].norm_statistics[0], found["srgb"].norm_statistics[0])
