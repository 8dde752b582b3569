"""ICC profiles: what an output carries, and conversion to sRGB against a float64 evaluation of planted profiles."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8
from restain.errors import InputError, SlideError, SlideWarning
from restain.methods.macenko import Macenko
from restain.references import read_reference
from restain.saved import load
from restain.slides.batch import BatchSettings, normalize_file
from restain.slides.codecs import PyramidSettings
from restain.slides.icc import SrgbSlide, histogram_in_srgb, profile_error, slide_in_srgb, srgb_profile, to_srgb
from restain.slides.pipeline import normalize_slide
from restain.slides.reader import open_slide
from restain.slides.virtual import NormalizedSlide
from restain.slides.writer import write_array

from ..icc_profiles import WIDE, matrix_profile
from ..running import Run

Floats = NDArray[np.float64]

SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
"""The same of sRGB (IEC 61966-2-1), adapted to D50."""
SMALL = PyramidSettings(tile=64, compression="none")


def converted(colors: RGB8, matrix: Floats = WIDE, gamma: float = 2.2) -> Floats:
    """What sRGB should be, in float64: linear light, to XYZ, to sRGB's primaries, IEC 61966-2-1's curve."""
    linear = (colors / 255.0) ** (round(gamma * 256) / 256)  # profiles hold gammas in 8 bits
    inside = np.clip(linear @ matrix.T @ np.linalg.inv(SRGB).T, 0, 1)
    return 255 * np.where(inside <= 0.0031308, 12.92 * inside, 1.055 * inside ** (1 / 2.4) - 0.055)


@pytest.fixture(scope="module")
def wide() -> bytes:
    return matrix_profile()


# ---- the conversion ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.2])
def test_a_planted_profile_is_converted_as_its_formula_says(gamma: float) -> None:
    colors = np.random.default_rng(0).integers(0, 256, (1, 200_000, 3), dtype=np.uint8)
    result = to_srgb(matrix_profile(gamma=gamma))(colors)[0].astype(np.float64)
    error = np.abs(result - converted(colors[0], gamma=gamma))
    # Half a level is rounding; numbers in profiles have 16 bits, which near black is more.
    assert np.percentile(error, 99) < 0.75
    assert error[colors[0].min(axis=1) > 60].max() < 1
    assert error.mean() < 0.3


def test_the_conversion_moves_colours_and_keeps_gray(wide: bytes) -> None:
    convert = to_srgb(wide)
    gray = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    result = convert(gray[None])[0].astype(int)
    assert np.ptp(result, axis=1).max() <= 1
    assert result[255].tolist() == [255, 255, 255]
    assert result[0].tolist() == [0, 0, 0]
    violet = np.array([[[120, 60, 160]]], np.uint8)
    assert np.abs(convert(violet).astype(int) - violet).max() > 5


def test_the_table_is_what_littlecms_does_to_an_image(wide: bytes, tissue: RGB8) -> None:
    flags = ImageCms.Flags.NOOPTIMIZE
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(wide)), ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile())), "RGB", "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC, flags,
    )  # fmt: skip
    wanted = np.asarray(ImageCms.applyTransform(Image.fromarray(tissue), transform))
    np.testing.assert_array_equal(to_srgb(wide)(tissue), wanted)


def test_srgb_is_left_as_it_is() -> None:
    colors = np.random.default_rng(1).integers(0, 256, (1, 100_000, 3), dtype=np.uint8)
    np.testing.assert_array_equal(to_srgb(srgb_profile())(colors), colors)


def cmyk_profile() -> bytes:
    return matrix_profile(space=b"CMYK", kind=b"prtr")


BAD = {
    "damaged": (b"no profile" * 20, "damaged"),
    "cut off": (matrix_profile()[:100], "damaged"),
    "of CMYK": (cmyk_profile(), "for CMYK pixels"),
    "of gray": (matrix_profile(space=b"GRAY"), "for GRAY pixels"),
    "Lab": (ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(), "abstract"),
    "a device link": (matrix_profile(kind=b"link"), "link"),
}


@pytest.mark.parametrize("name", BAD)
def test_profiles_that_are_not_of_rgb_pixels(name: str, tissue: RGB8, tmp_path: Path) -> None:
    profile, reason = BAD[name]
    assert reason in (profile_error(profile) or "")
    with pytest.raises(InputError, match=f"cannot be converted to sRGB: it is .*{reason}"):
        to_srgb(profile)
    # As they are, pixels are read, and the profile is not believed; converted they cannot be.
    write_array(tmp_path / "slide.tif", tissue, settings=SMALL, icc_profile=profile)
    Image.fromarray(tissue).save(tmp_path / "image.png", icc_profile=profile)
    write_array(tmp_path / "slide.ome.tif", tissue, settings=SMALL, icc_profile=profile)
    for path in sorted(tmp_path.iterdir()):
        with pytest.warns(SlideWarning, match=r"the ICC profile of .* is .*; its pixels are taken as sRGB"):
            slide = open_slide(path)
        assert slide.icc_profile is None
        assert slide.icc_error is not None
        slide.close()
        with (
            pytest.warns(SlideWarning),
            pytest.raises(
                SlideError, match=r"cannot be converted to sRGB: its ICC profile is .*use --icc keep"
            ) as error,
        ):
            open_slide(path, icc="srgb")
        assert "\n" not in str(error.value)


def test_good_profiles_are_believed(wide: bytes) -> None:
    assert profile_error(wide) is None
    assert profile_error(srgb_profile()) is None
    assert profile_error(matrix_profile(kind=b"scnr")) is None
    assert profile_error(matrix_profile(kind=b"spac")) is None


# ---- slides and histograms --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["slide.tif", "slide.ome.tif", "image.png"])
def test_a_slide_is_converted_as_it_is_read(name: str, tissue: RGB8, wide: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith("png"):
        Image.fromarray(tissue).save(path, icc_profile=wide)
    else:
        write_array(path, tissue, settings=SMALL, icc_profile=wide, mpp=(0.25, 0.3))
    with open_slide(path) as kept, open_slide(path, icc="srgb") as slide:
        assert kept.icc_profile == wide
        np.testing.assert_array_equal(kept.read_region((0, 0), 0, kept.dimensions)[0], tissue)
        pixels, known = slide.read_region((0, 0), 0, slide.dimensions)
        np.testing.assert_array_equal(pixels, to_srgb(wide)(tissue))
        assert known is None
        assert slide.icc_profile is None
        assert slide.mpp == kept.mpp
        assert slide.level_dimensions == kept.level_dimensions
        assert slide.properties["restain.icc"] == "converted to sRGB"
        last = len(slide.level_dimensions) - 1
        size = slide.level_dimensions[last]
        np.testing.assert_array_equal(
            slide.read_region((0, 0), last, size)[0], to_srgb(wide)(kept.read_region((0, 0), last, size)[0])
        )


def test_padding_stays_white_and_transparency_stays(tissue: RGB8, wide: bytes, tmp_path: Path) -> None:
    write_array(tmp_path / "slide.tif", tissue, settings=SMALL, icc_profile=wide)
    with open_slide(tmp_path / "slide.tif", icc="srgb") as slide:
        pixels, known = slide.read_region((-10, -10), 0, (50, 50))
        assert known is not None
        assert (pixels[~known] == 255).all()
        np.testing.assert_array_equal(pixels[10:, 10:], to_srgb(wide)(tissue[:40, :40]))
    alpha = np.full(tissue.shape[:2], 255, np.uint8)
    alpha[:50] = 0
    alpha[50:60] = 100
    Image.fromarray(np.dstack([tissue, alpha])).save(tmp_path / "i.png", icc_profile=wide)
    with open_slide(tmp_path / "i.png", icc="srgb") as image:
        rgba = image.rgba  # type: ignore[attr-defined]
        np.testing.assert_array_equal(rgba[..., 3], alpha)
        np.testing.assert_array_equal(rgba[..., :3], to_srgb(wide)(tissue))
        np.testing.assert_array_equal(
            image.read_region((0, 0), 0, image.dimensions)[0][60:], to_srgb(wide)(tissue)[60:]
        )


def test_without_a_profile_nothing_changes(pyramid: Path) -> None:
    with open_slide(pyramid) as slide:
        assert slide_in_srgb(slide) is slide
    with pytest.raises(InputError, match="got icc='sRGB'; wanted keep or srgb"):
        open_slide(pyramid, icc="sRGB")  # type: ignore[arg-type]


def test_closing_the_converted_slide_closes_the_other(tissue: RGB8, wide: bytes, tmp_path: Path) -> None:
    write_array(tmp_path / "slide.ome.tif", tissue, settings=SMALL, icc_profile=wide)
    slide = open_slide(tmp_path / "slide.ome.tif", icc="srgb")
    assert isinstance(slide, SrgbSlide)
    slide.close()
    with pytest.raises(SlideError):
        slide.read_region((0, 0), 0, (10, 10))


def test_a_histogram_is_converted_colour_by_colour(tissue: RGB8, wide: bytes) -> None:
    histogram = replace(ColorHistogram.from_image(tissue), icc_profile=wide, provenance={"from": "here"})
    result = histogram_in_srgb(histogram)
    assert result == replace(
        ColorHistogram.from_image(to_srgb(wide)(tissue)), provenance={"from": "here", "icc": "converted to sRGB"}
    )
    plain = ColorHistogram.from_image(tissue)
    assert histogram_in_srgb(plain) is plain


# ---- normalizing ------------------------------------------------------------------------------------------------


def test_the_output_carries_the_reference_s_profile(tissue: RGB8, wide: bytes, tmp_path: Path) -> None:
    other = matrix_profile(gamma=1.8)
    write_array(tmp_path / "slide.tif", tissue, settings=SMALL, icc_profile=other, mpp=(0.25, 0.25))
    fitted = Macenko().fit(replace(ColorHistogram.from_image(tissue), icc_profile=wide))
    normalize_slide(tmp_path / "slide.tif", tmp_path / "out.tif", fitted, settings=SMALL)
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        assert {page.iccprofile for page in tiff.pages} == {wide}


@pytest.mark.parametrize("name", ["slide.tif", "image.png"])
def test_two_scanners_of_one_tissue_agree_when_both_are_srgb_first(
    name: str, tissue: RGB8, wide: bytes, tmp_path: Path
) -> None:
    """The same scene as sRGB and as a wide-gamut scanner records it gives one result, and with `keep` another."""
    recorded = to_wide(tissue)
    for folder, pixels, profile in (("srgb", tissue, None), ("wide", recorded, wide)):
        (tmp_path / folder).mkdir()
        if name.endswith("png"):
            Image.fromarray(pixels).save(tmp_path / folder / name, icc_profile=profile)
        else:
            write_array(tmp_path / folder / name, pixels, settings=SMALL, icc_profile=profile)
    results = {}
    for icc in ("keep", "srgb"):
        fitted = Macenko().fit(read_reference(tmp_path / "srgb" / name, icc=icc))  # type: ignore[arg-type]
        for folder in ("srgb", "wide"):
            output = tmp_path / f"{icc}-{folder}{Path(name).suffix}"
            settings = BatchSettings(pyramid=SMALL, icc=icc)  # type: ignore[arg-type]
            normalize_file(tmp_path / folder / name, output, fitted, settings)
            with open_slide(output) as slide:
                assert slide.icc_profile == srgb_profile()
                results[icc, folder] = slide.read_region((0, 0), 0, slide.dimensions)[0].astype(int)
    near = np.abs(results["srgb", "wide"] - results["srgb", "srgb"]).mean()
    far = np.abs(results["keep", "wide"] - results["keep", "srgb"]).mean()
    assert near < 0.3
    assert far > 1


def to_wide(pixels: RGB8) -> RGB8:
    """sRGB pixels as Adobe RGB's numbers, in float64."""
    value = pixels / 255.0
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    inside = np.clip(linear @ SRGB.T @ np.linalg.inv(WIDE).T, 0, 1)
    return np.rint(255 * inside ** (1 / 2.2)).astype(np.uint8)


def test_the_reference_is_converted_too(tissue: RGB8, wide: bytes, tmp_path: Path) -> None:
    Image.fromarray(to_wide(tissue)).save(tmp_path / "wide.png", icc_profile=wide)
    kept, result = (read_reference(tmp_path / "wide.png", icc=icc) for icc in ("keep", "srgb"))
    assert kept.icc_profile == wide
    assert result.icc_profile is None
    difference = [
        np.abs(np.average(h.colors, axis=0, weights=h.counts) - tissue.reshape(-1, 3).mean(axis=0)).max()
        for h in (kept, result)
    ]
    assert difference[1] < 0.2 < difference[0]
    # A saved histogram that has a profile, and lists, too.
    kept.save(tmp_path / "h.safetensors")
    assert read_reference(tmp_path / "h.safetensors", icc="srgb").icc_profile is None
    assert read_reference([kept, result], icc="srgb").icc_profile is None


def test_the_command(run: Run, tissue: RGB8, wide: bytes, tmp_path: Path) -> None:
    write_array(tmp_path / "slide.tif", to_wide(tissue), settings=SMALL, icc_profile=wide)
    arguments = ["--target", tmp_path / "slide.tif", "--tile-size", 64]
    for icc, profile in (("keep", wide), ("srgb", srgb_profile())):
        outcome = run("normalize", tmp_path / "slide.tif", tmp_path / f"{icc}.tif", "--icc", icc, *arguments)
        assert (outcome.code, outcome.err) == (0, "")
        with tifffile.TiffFile(tmp_path / f"{icc}.tif") as tiff:
            assert tiff.pages[0].iccprofile == profile
            assert ("converted to sRGB" in tiff.pages[0].description) == (icc == "srgb")
    assert run("fit", tmp_path / "slide.tif", "-o", tmp_path / "keep.safetensors").code == 0
    assert run("fit", tmp_path / "slide.tif", "-o", tmp_path / "srgb.safetensors", "--icc", "srgb").code == 0
    outcome = run(
        "normalize",
        tmp_path / "slide.tif",
        tmp_path / "a.tif",
        "--icc",
        "srgb",
        "--normalizer",
        tmp_path / "keep.safetensors",
    )
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "was fitted in its reference's own colours; fit it again with --icc srgb" in outcome.err
    saved = tmp_path / "srgb.safetensors"
    outcome = run("normalize", tmp_path / "slide.tif", tmp_path / "b.tif", "--icc", "srgb", "--normalizer", saved)
    assert outcome.code == 0


def test_a_damaged_profile_is_one_line_of_the_command(run: Run, tissue: RGB8, tmp_path: Path) -> None:
    write_array(tmp_path / "slide.tif", tissue, settings=SMALL, icc_profile=b"no profile" * 20)
    outcome = run("normalize", tmp_path / "slide.tif", tmp_path / "out.tif", "--icc", "srgb")
    assert outcome.code == 2
    assert "cannot be converted to sRGB: its ICC profile is damaged; use --icc keep" in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "out.tif").exists()


@pytest.mark.parametrize("flat", [None, ColorHistogram.from_colors(np.zeros((0, 3), np.uint8), np.zeros(0, np.int64))])
def test_a_reference_without_glass_is_converted_too(flat: ColorHistogram | None, tissue: RGB8) -> None:
    reference = replace(ColorHistogram.from_image(tissue), flat=flat, icc_profile=matrix_profile())
    converted = histogram_in_srgb(reference)
    assert converted.counts.sum() == reference.counts.sum()
    assert (converted.flat is None) == (flat is None)
    assert converted.flat is None or not len(converted.flat.codes)
    nothing = replace(reference, codes=reference.codes[:0], counts=reference.counts[:0])
    assert (len(histogram_in_srgb(nothing).codes), histogram_in_srgb(nothing).icc_profile) == (0, None)


def test_comparison_and_separation_are_of_what_scanners_saw(
    run: Run, tissue: RGB8, wide: bytes, tmp_path: Path
) -> None:
    """One scene as two scanners record it: far apart as numbers, and alike in sRGB."""
    write_array(tmp_path / "srgb.tif", tissue, settings=SMALL)
    write_array(tmp_path / "wide.tif", to_wide(tissue), settings=SMALL, icc_profile=wide)
    apart, stains = {}, {}
    for icc in ("keep", "srgb"):
        command = ["compare", tmp_path / "wide.tif", tmp_path / "srgb.tif", "--methods", "reinhard", "--json"]
        apart[icc] = run(*command, "--icc", icc).json["raw"]["mean_color"]["distance"]
        for name in ("wide", "srgb"):
            out = tmp_path / f"{icc} {name}"
            outcome = run("separate", tmp_path / f"{name}.tif", out, "--icc", icc, "--tile-size", 64, "--json")
            stains[icc, name] = np.array(outcome.json["results"][0]["percentiles"]["hematoxylin"]["99"])
            with tifffile.TiffFile(out / f"{name}.hematoxylin.tif") as tiff:
                found = tiff.pages.first.iccprofile
            assert found == (wide if (icc, name) == ("keep", "wide") else None)
    assert apart["srgb"] < 0.3 < 1 < apart["keep"]
    assert abs(stains["srgb", "wide"] / stains["srgb", "srgb"] - 1) < 0.02
    assert abs(stains["keep", "wide"] / stains["keep", "srgb"] - 1) > 0.05


def test_a_fit_by_the_command_is_in_srgb(run: Run, tissue: RGB8, wide: bytes, tmp_path: Path) -> None:
    Image.fromarray(to_wide(tissue)).save(tmp_path / "wide.png", icc_profile=wide)
    for icc in ("keep", "srgb"):
        assert run("fit", tmp_path / "wide.png", "-o", tmp_path / f"{icc}.safetensors", "--icc", icc).code == 0
    kept, converted = (load(tmp_path / f"{icc}.safetensors") for icc in ("keep", "srgb"))
    assert kept == Macenko().fit(tmp_path / "wide.png")
    assert converted == Macenko().fit(tmp_path / "wide.png", icc="srgb")
    assert kept != converted


def test_a_slide_normalized_while_it_is_read_is_converted_first(tissue: RGB8, wide: bytes, tmp_path: Path) -> None:
    write_array(tmp_path / "wide.tif", to_wide(tissue), settings=SMALL, icc_profile=wide)
    fitted = Macenko().fit("he", icc="srgb")
    read = {}
    for icc in ("keep", "srgb"):
        with NormalizedSlide(tmp_path / "wide.tif", fitted, icc=icc) as slide:  # type: ignore[arg-type]
            assert slide.appearance == fitted.estimate(tmp_path / "wide.tif", icc=icc)  # type: ignore[arg-type]
            read[icc] = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]
    normalize_slide(tmp_path / "wide.tif", tmp_path / "out.tif", fitted, icc="srgb", settings=SMALL)
    with open_slide(tmp_path / "out.tif") as written:
        np.testing.assert_array_equal(read["srgb"], written.read_region((0, 0), 0, written.dimensions)[0])
    assert (read["keep"] != read["srgb"]).any()
