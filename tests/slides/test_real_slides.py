"""Real slides, where there are some: an Aperio SVS, a DICOM level, and one slide as four scanners saw it."""

import warnings
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from restain.color.images import RGB8
from restain.methods.macenko import Macenko
from restain.slides.pipeline import SlideResult, normalize_slide
from restain.slides.reader import open_slide
from restain.slides.sample import sample_slide

JPEG_ERROR = 4.0
"""Mean absolute difference, grey levels, that quality 90 may cost on sharp tissue; an inverted channel or a shift of
one pixel costs about ten."""


def slide_in(data: Path, name: str) -> Path:
    path = data / name
    if not path.is_file():
        pytest.skip(f"no {name} in {data}")
    return path


def check_output(source: Path, output: Path, normalizer: Macenko, result: SlideResult) -> None:
    """OpenSlide and tifffile agree on every level, and a window is the map of the source up to JPEG."""
    with openslide.OpenSlide(str(output)) as slide, tifffile.TiffFile(output) as tiff:
        levels = tiff.series[0].levels
        assert slide.dimensions == result.size
        assert slide.level_count == len(levels) > 1
        for level, (size, other) in enumerate(zip(slide.level_dimensions, levels, strict=True)):
            pixels = np.asarray(slide.read_region((0, 0), level, size))
            assert (pixels[..., 3] == 255).all()
            np.testing.assert_array_equal(pixels[..., :3], other.asarray())
    with open_slide(source) as before, open_slide(output) as after:
        width, height = before.dimensions
        corner, size = (width // 3, height // 3), (min(1000, width // 2), min(1000, height // 2))
        wanted = normalizer.transform(before.read_region(corner, 0, size)[0], result.appearance)
        error = np.abs(after.read_region(corner, 0, size)[0].astype(np.int64) - wanted)
        assert error.mean() < JPEG_ERROR
        assert after.mpp == (pytest.approx(before.mpp) if before.mpp else None)
        assert after.objective_power == before.objective_power
        assert after.level_downsamples[1] == pytest.approx(2, rel=0.01)
        # A level is the mean of what lies beneath it.
        first = after.read_region((0, 0), 0, after.dimensions)[0]
        second = after.read_region((0, 0), 1, after.level_dimensions[1])[0]
        assert np.abs(mean_of_fours(first) - second).mean() < JPEG_ERROR


def mean_of_fours(image: RGB8) -> np.ndarray:
    height, width = image.shape[0] // 2, image.shape[1] // 2
    return image[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3).mean(axis=(1, 3))


def test_aperio(data: Path, fitted: Macenko, tmp_path: Path) -> None:
    source = slide_in(data, "wsi/CMU-1-Small-Region.svs")
    before = source.read_bytes()
    with open_slide(source) as slide:
        assert slide.format == "openslide: aperio"
        assert slide.objective_power == 20
        assert slide.mpp == pytest.approx((0.499, 0.499))
        assert "label" in slide.associated_images
    result = normalize_slide(source, tmp_path / "out.tif", fitted)
    check_output(source, tmp_path / "out.tif", fitted, result)
    assert result.appearance.white_origin == "glass"
    assert result.warnings == ()
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        assert len(tiff.series) == 1  # the label, which may carry a name, is not copied
    assert source.read_bytes() == before


def test_aperio_with_its_label(data: Path, fitted: Macenko, tmp_path: Path) -> None:
    source = slide_in(data, "wsi/CMU-1-Small-Region.svs")
    normalize_slide(source, tmp_path / "out.tif", fitted, max_pixels=1_000_000, associated="keep")
    with openslide.OpenSlide(str(source)) as slide, tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        further = {page.description: page.asarray() for page in tiff.pages if not page.is_tiled}
        assert set(further) == {"label", "macro"}
        for name, pixels in further.items():
            np.testing.assert_array_equal(pixels, np.asarray(slide.associated_images[name].convert("RGB")))


def test_dicom(data: Path, fitted: Macenko, tmp_path: Path) -> None:
    source = slide_in(data, "wsi/multiframe_camelyon_challenge_image.dcm")
    with open_slide(source) as slide:
        assert slide.format == "openslide: dicom"
        assert slide.dimensions == (1152, 700)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = normalize_slide(source, tmp_path / "out.tif", fitted)
    check_output(source, tmp_path / "out.tif", fitted, result)


def test_one_of_four_scanners(data: Path, tmp_path: Path) -> None:
    source = slide_in(data, "scanners4_cytology/563479/NanoZoomerS210_563479.tif")
    normalizer = Macenko().fit("pap")
    with pytest.warns(UserWarning, match="1000 micrometres per pixel"):
        result = normalize_slide(source, tmp_path / "out.tif", normalizer, max_pixels=4_000_000)
    assert len(result.warnings) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_output(source, tmp_path / "out.tif", normalizer, result)
    with openslide.OpenSlide(str(tmp_path / "out.tif")) as slide:
        assert "openslide.mpp-x" not in slide.properties


def test_four_scanners_have_four_whites(data: Path) -> None:
    """Measured on one specimen: neutral, white, bluish and pinkish glass."""
    normalizer = Macenko().fit("pap")
    whites = {}
    for name in ("Aperio", "AxioScan", "NanoZoomer2.0HT", "NanoZoomerS210"):
        source = slide_in(data, f"scanners4_cytology/563479/{name}_563479.tif")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some claim 1000 micrometres a pixel
            appearance = normalizer.estimate(sample_slide(source, max_pixels=2_000_000))
        assert appearance.white_origin == "glass"
        whites[name] = appearance.white_point
    spread = np.ptp(np.stack(list(whites.values())), axis=0)
    assert (spread > 10).all()
