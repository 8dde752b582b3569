"""Every format and compression that slides are written in, read back by readers that are not restain's.

OpenSlide reads generic TIFF and DICOM, tifffile both kinds of TIFF, the zarr package OME-Zarr, wsidicom and pydicom
DICOM.
"""

import base64
import json
import re
import tracemalloc
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile

from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8
from restain.errors import InputError, OutputError
from restain.methods.macenko import Macenko
from restain.slides.codecs import PyramidSettings, encode_tile
from restain.slides.formats import COMPRESSIONS, FORMATS, format_of, pyramid_format, stem_of
from restain.slides.icc import srgb_profile
from restain.slides.pipeline import normalize_slide
from restain.slides.reader import open_slide
from restain.slides.writer import write_array, write_pyramid

from .making import BARE, SATURATED_IMAGE, saturated_error, write_with_holes
from .shards import place_of

zarr = pytest.importorskip("zarr")
pydicom = pytest.importorskip("pydicom")
wsidicom = pytest.importorskip("wsidicom")

NAMES = {"tiff": "out.tif", "ome-tiff": "out.ome.tif", "ome-zarr": "out.ome.zarr", "dicom": "out.dcm"}
MPP = (0.25, 0.3)


@dataclass
class Read:
    """What a reader saw: levels (H, W, 3), micrometres per pixel (x, y), the ICC profile."""

    levels: list[RGB8]
    mpp: tuple[float, float] | None
    icc: bytes | None


def by_openslide(path: Path) -> Read:
    with openslide.OpenSlide(str(path / "level-0.dcm" if path.is_dir() else path)) as slide:
        levels = [
            np.asarray(slide.read_region((0, 0), level, size))[..., :3]
            for level, size in enumerate(slide.level_dimensions)
        ]
        facts = slide.properties
        mpp = (float(facts["openslide.mpp-x"]), float(facts["openslide.mpp-y"])) if "openslide.mpp-x" in facts else None
        profile = slide.color_profile
        return Read(levels, mpp, None if profile is None else profile.tobytes())


def by_tifffile(path: Path) -> Read:
    with tifffile.TiffFile(path) as tiff:
        levels = [level.asarray() for level in tiff.series[0].levels]
        first = tiff.pages.first
        if tiff.is_ome:
            pixels = ElementTree.fromstring(tiff.ome_metadata).find(".//{*}Pixels")
            assert pixels is not None
            assert pixels.get("PhysicalSizeXUnit") == pixels.get("PhysicalSizeYUnit") == "µm"
            mpp = (float(pixels.attrib["PhysicalSizeX"]), float(pixels.attrib["PhysicalSizeY"]))
        else:
            x, y = (np.divide(*first.tags[name].value) for name in ("XResolution", "YResolution"))
            mpp = (10_000 / x, 10_000 / y)
        return Read(levels, mpp, first.iccprofile)


def by_zarr(path: Path) -> Read:
    group = zarr.open_group(path, mode="r")
    ome = group.attrs["ome"]
    assert ome["version"] == "0.5"
    image = ome["multiscales"][0]
    assert [axis["name"] for axis in image["axes"]] == ["c", "y", "x"]
    assert [axis.get("unit") for axis in image["axes"]] == [None, "micrometer", "micrometer"]
    levels = [group[item["path"]][:].transpose(1, 2, 0) for item in image["datasets"]]
    scales = [item["coordinateTransformations"][0]["scale"] for item in image["datasets"]]
    for number, scale in enumerate(scales):
        assert scale == pytest.approx([1, MPP[1] * 2**number, MPP[0] * 2**number])
    profile = group.attrs["restain"].get("icc_profile")
    return Read(levels, (scales[0][2], scales[0][1]), None if profile is None else base64.b64decode(profile))


def by_wsidicom(path: Path) -> Read:
    with wsidicom.WsiDicom.open(path) as slide:
        levels = [
            np.asarray(slide.read_region((0, 0), level.level, (level.size.width, level.size.height)))[..., :3]
            for level in slide.pyramids[0]
        ]
        mpp = slide.pyramids[0][0].mpp
        return Read(levels, (mpp.width, mpp.height), None)


def by_pydicom(path: Path) -> Read:
    """Frames put together by hand, as TILED_FULL says."""
    found = sorted((pydicom.dcmread(file) for file in path.glob("level-*.dcm")), key=lambda d: -d.TotalPixelMatrixRows)
    levels = []
    for data in found:
        assert data.DimensionOrganizationType == "TILED_FULL"
        across, side = -(-data.TotalPixelMatrixColumns // data.Columns), data.Rows
        down = -(-data.TotalPixelMatrixRows // side)
        whole = np.zeros((down * side, across * side, 3), np.uint8)
        frames = data.pixel_array.reshape(-1, side, side, 3)
        assert len(frames) == data.NumberOfFrames == down * across
        for index, frame in enumerate(frames):
            y, x = index // across * side, index % across * side
            whole[y : y + side, x : x + side] = frame
        levels.append(whole[: data.TotalPixelMatrixRows, : data.TotalPixelMatrixColumns])
    spacing = found[0].SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    profile = found[0].OpticalPathSequence[0].get("ICCProfile")
    return Read(levels, (float(spacing[1]) * 1000, float(spacing[0]) * 1000), profile)


READERS: dict[str, tuple[Callable[[Path], Read], ...]] = {
    "tiff": (by_tifffile, by_openslide),
    "ome-tiff": (by_tifffile,),
    "ome-zarr": (by_zarr,),
    "dicom": (by_openslide, by_wsidicom, by_pydicom),
}
UNREADABLE = {("tiff", by_openslide, codec) for codec in ("jpeg2000", "jpegxl", "webp")}
"""What OpenSlide does not read; the docs say so."""

HELD = [(format, codec) for format, facts in FORMATS.items() for codec in facts.compressions]
CASES = [
    pytest.param(format, codec, reader, id=f"{format}-{codec}-{reader.__name__}")
    for format, codec in HELD
    for reader in READERS[format]
    if (format, reader, codec) not in UNREADABLE
]


def halved(image: RGB8) -> RGB8:
    """The mean of 2x2 pixels, halves rounded up, an odd last row or column left out."""
    height, width = image.shape[0] // 2, image.shape[1] // 2
    blocks = image[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3).astype(np.float64)
    return np.floor(blocks.mean(axis=(1, 3)) + 0.5).astype(np.uint8)


def pyramid_of(image: RGB8) -> list[RGB8]:
    levels = [image]
    while max(levels[-1].shape[:2]) > 64:
        levels.append(halved(levels[-1]))
    return levels


def settings_of(codec: str | None, quality: int = 90) -> PyramidSettings:
    return PyramidSettings(tile=64, quality=quality, compression=codec)


# ---- pixels, levels, resolution, colours ------------------------------------------------------------------------


@pytest.mark.parametrize(("format", "codec", "reader"), CASES)
def test_what_a_second_reader_sees(
    format: str, codec: str, reader: Callable[[Path], Read], tissue: RGB8, tmp_path: Path
) -> None:
    path = tmp_path / NAMES[format]
    lossless = codec in ("jpeg2000", "jpegxl", "webp", "deflate", "zstd", "none")
    settings = settings_of(codec, 100 if lossless else 90)
    write_array(path, tissue, settings=settings, mpp=MPP, icc_profile=srgb_profile())
    seen, wanted = reader(path), pyramid_of(tissue)
    assert [level.shape for level in seen.levels] == [level.shape for level in wanted]
    for level, expected in zip(seen.levels, wanted, strict=True):
        if lossless:
            np.testing.assert_array_equal(level, expected)
        else:
            assert np.abs(level.astype(int) - expected).mean() < 5
            assert np.abs((level.astype(float) - expected).mean(axis=(0, 1))).max() < 0.5
    assert seen.mpp == pytest.approx(MPP, rel=1e-6)
    if reader is not by_wsidicom:
        assert (seen.icc or b"")[: len(srgb_profile())] == srgb_profile()


@pytest.mark.parametrize(
    ("format", "codec", "reader"), [case for case in CASES if case.values[1] in ("jpeg", "jpegxl", "jpeg2000", "webp")]
)
def test_saturated_colours_come_back_from_what_loses_some(
    format: str, codec: str, reader: Callable[[Path], Read], tmp_path: Path
) -> None:
    """YCbCr called RGB, or the reverse, opens in every reader, in other colours."""
    write_array(tmp_path / NAMES[format], SATURATED_IMAGE, settings=settings_of(codec), mpp=MPP)
    error = saturated_error(reader(tmp_path / NAMES[format]).levels[0])
    # JPEG XL spends little on blue and cyan that no eye tells apart; a wrong colour space is off by 50 and more.
    assert error.mean(axis=(0, 2)).max() <= {"jpeg": 2, "jpeg2000": 6, "jpegxl": 15, "webp": 3}[codec]


@pytest.mark.parametrize("format", NAMES)
@pytest.mark.parametrize(("width", "height"), [(1, 1), (64, 64), (65, 64), (1, 200), (130, 257)])
def test_any_size_and_reading_by_restain(format: str, width: int, height: int, tmp_path: Path) -> None:
    if format == "dicom" and width == 1 < height:
        pytest.skip("OpenSlide reads no DICOM of which a side stays at one pixel")
    image = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path = tmp_path / NAMES[format]
    write_array(path, image, settings=settings_of("none"), mpp=MPP, objective_power=20.0)
    with open_slide(path) as slide:
        pixels, known = slide.read_region((0, 0), 0, slide.dimensions)
        np.testing.assert_array_equal(pixels, image)
        assert known is None
        assert slide.mpp == pytest.approx(MPP)
        last = slide.level_dimensions[-1]
        assert max(last) <= 64 < 2 * max(last) + 2 or slide.level_dimensions == ((width, height),)


@pytest.mark.parametrize("format", NAMES)
def test_unknown_resolution_and_power_and_profile(format: str, tissue: RGB8, tmp_path: Path) -> None:
    path = tmp_path / NAMES[format]
    if format == "dicom":
        with pytest.raises(OutputError, match="DICOM must state the resolution"):
            write_array(path, tissue, settings=settings_of(None))
        assert list(tmp_path.iterdir()) == []
        return
    write_array(path, tissue, settings=settings_of(None))
    with open_slide(path) as slide:
        assert (slide.mpp, slide.objective_power, slide.icc_profile) == (None, None, None)


@pytest.mark.parametrize("format", ["ome-tiff", "ome-zarr", "dicom"])
def test_the_objective_s_power(format: str, tissue: RGB8, tmp_path: Path) -> None:
    path = tmp_path / NAMES[format]
    write_array(path, tissue, settings=settings_of(None), mpp=MPP, objective_power=40.0)
    with open_slide(path) as slide:
        assert slide.objective_power == 40


# ---- what the files say -----------------------------------------------------------------------------------------


def test_ome_tiff_is_bigtiff_with_levels_in_subifds_and_well_formed_xml(tissue: RGB8, tmp_path: Path) -> None:
    path = tmp_path / "out.ome.tif"
    said = json.dumps({"a": "<&\"'>"})
    write_array(
        path, tissue, settings=settings_of(None), mpp=MPP, description=said, objective_power=20.0, software="it"
    )
    with tifffile.TiffFile(path) as tiff:
        assert (tiff.is_bigtiff, tiff.is_ome, len(tiff.pages), len(tiff.pages[0].subifds)) == (True, True, 1, 3)
        assert tiff.series[0].kind == "ome"
        assert tiff.series[0].axes == "YXS"
        raw = tiff.pages[0].tags["ImageDescription"].value
    # Bio-Formats makes " #" of "&#", and takes a file whose unit it then does not know for no OME-TIFF.
    assert ' PhysicalSizeXUnit="µm"' in raw
    assert "&#" not in raw
    assert raw.replace("µ", "").isascii()
    root = ElementTree.fromstring(raw)
    names = [element.tag.partition("}")[2] for element in root.find("{*}Image") or ()]
    assert names == ["Description", "InstrumentRef", "ObjectiveSettings", "Pixels"]  # the schema's order
    assert [child.tag.partition("}")[2] for child in root] == ["Instrument", "Image"]
    assert root.findtext(".//{*}Description") == said
    assert root.attrib["Creator"] == "it"
    objective, pixels = root.find(".//{*}Objective"), root.find(".//{*}Pixels")
    assert objective is not None
    assert float(objective.attrib["NominalMagnification"]) == 20
    assert pixels is not None
    assert {key: pixels.get(key) for key in ("SizeX", "SizeY", "SizeC", "Type", "Interleaved")} == {
        "SizeX": "423", "SizeY": "301", "SizeC": "3", "Type": "uint8", "Interleaved": "true",
    }  # fmt: skip


def test_dicom_says_what_a_whole_slide_must(tissue: RGB8, tmp_path: Path) -> None:
    path = tmp_path / "out.dcm"
    write_array(path, tissue, settings=settings_of("jpeg"), mpp=MPP, icc_profile=srgb_profile(), objective_power=20.0)
    found = [pydicom.dcmread(file) for file in sorted(path.iterdir())]
    assert [data.ImageType for data in found] == [
        ["DERIVED", "PRIMARY", "VOLUME", kind] for kind in ("NONE", "RESAMPLED", "RESAMPLED", "RESAMPLED")
    ]
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PyramidUID"):
        assert len({getattr(data, keyword) for data in found}) == 1
    assert len({data.SOPInstanceUID for data in found}) == 4
    for level, data in enumerate(found):
        assert data.file_meta.TransferSyntaxUID == pydicom.uid.JPEGBaseline8Bit
        assert data.SOPClassUID == data.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.77.1.6"
        assert data.PhotometricInterpretation == "YBR_FULL_422"
        spacing = data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
        assert [float(value) for value in spacing] == pytest.approx(
            [MPP[1] / 1000 * 2**level, MPP[0] / 1000 * 2**level]
        )
        # Whoever trusts the volume and whoever trusts the spacing see tissue of the same size.
        assert float(data.ImagedVolumeWidth) == pytest.approx(data.TotalPixelMatrixColumns * float(spacing[1]))
        assert float(data.ImagedVolumeHeight) == pytest.approx(data.TotalPixelMatrixRows * float(spacing[0]))
        assert data.OpticalPathSequence[0].ICCProfile[: len(srgb_profile())] == srgb_profile()
        assert float(data.OpticalPathSequence[0].ObjectiveLensPower) == 20
        assert data.LossyImageCompression == "01"
        stored = sum(np.frombuffer(data.ExtendedOffsetTableLengths, "<u8"))
        area = data.TotalPixelMatrixColumns * data.TotalPixelMatrixRows
        assert float(data.LossyImageCompressionRatio) == pytest.approx(3 * area / stored, rel=1e-6)
        assert data.ImagedVolumeDepth == 1  # micrometres
    lossless = tmp_path / "lossless.dcm"
    write_array(lossless, tissue, settings=settings_of("jpeg2000", 100), mpp=MPP)
    data = pydicom.dcmread(lossless / "level-0.dcm")
    assert data.LossyImageCompression == "01"  # of the source, as far as is known, and then these two must be there
    assert (data.LossyImageCompressionRatio, data.LossyImageCompressionMethod) == (1, "UNKNOWN")


def test_dicom_claims_nothing_of_label_and_macro(svs: Path, tissue: RGB8, tmp_path: Path) -> None:
    """They are another camera's: neither the slide's resolution, nor its optics, nor its colours are theirs."""
    reference = replace(ColorHistogram.from_image(tissue), icc_profile=b"of the reference", provenance={})
    fitted = Macenko().fit(reference)
    normalize_slide(svs, tmp_path / "out.dcm", fitted, settings=settings_of(None), associated="keep")
    level, label, macro = (
        pydicom.dcmread(tmp_path / "out.dcm" / f"{name}.dcm") for name in ("level-0", "label", "macro")
    )
    assert level.OpticalPathSequence[0].ICCProfile == b"of the reference"
    assert level.OpticalPathSequence[0].ObjectiveLensPower == 20
    for data in (label, macro):
        (measures,) = data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence  # must be there, and says nothing
        assert len(measures) == 0
        assert not [keyword for keyword in data.dir("ImagedVolume") if keyword in data]
        assert "ObjectiveLensPower" not in data.OpticalPathSequence[0]
        assert data.OpticalPathSequence[0].ICCProfile[: len(srgb_profile())] == srgb_profile()
        assert data.BurnedInAnnotation == data.SpecimenLabelInImage == "YES"
    assert label["BarcodeValue"].value == label["LabelText"].value == ""
    with wsidicom.WsiDicom.open(tmp_path / "out.dcm") as slide:
        assert slide.pyramids[0][0].mpp.width == pytest.approx(0.5)
        for image, wanted in ((slide.read_label(), label), (slide.read_overview(), macro)):
            assert image.size == (wanted.TotalPixelMatrixColumns, wanted.TotalPixelMatrixRows)


def test_dicom_names_no_patient(svs: Path, fitted: Macenko, tmp_path: Path) -> None:
    normalize_slide(svs, tmp_path / "out.dcm", fitted, settings=settings_of(None))
    for file in (tmp_path / "out.dcm").iterdir():
        data = pydicom.dcmread(file)
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
                        "StudyDate", "StudyTime", "ReferringPhysicianName"):  # fmt: skip
            assert str(data[keyword].value or "") == ""
        assert data.BurnedInAnnotation == data.SpecimenLabelInImage == "NO"


def test_ome_zarr_is_one_chunk_a_tile_in_standard_codecs(tissue: RGB8, tmp_path: Path) -> None:
    path = tmp_path / "out.ome.zarr"
    write_array(path, tissue, settings=settings_of("zstd"), mpp=MPP)
    group = zarr.open_group(path, mode="r")
    assert group["0"].chunks == (3, 64, 64)
    assert group["0"].metadata.dimension_names == ("c", "y", "x")
    assert sorted(group.array_keys()) == ["0", "1", "2", "3"]
    assert group["0"].shards == (3, 5 * 64, 7 * 64)
    assert [file.name for file in (path / "0" / "c").rglob("*") if file.is_file()] == ["0"]
    assert len(group.attrs["ome"]["omero"]["channels"]) == 3


# ---- names, compressions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.tif", "tiff"), ("a.TIFF", "tiff"), ("a.b.tif", "tiff"), ("a.ome.tif", "ome-tiff"),
        ("A.OME.TIFF", "ome-tiff"), ("a.zarr", "ome-zarr"), ("a.ome.zarr", "ome-zarr"),
        ("a.dcm", "dicom"), ("a.dicom", "dicom"),
        ("a.svs", None), ("a", None), (".tif", None), ("tif", None),
    ],
)  # fmt: skip
def test_the_name_chooses_the_format(name: str, format: str | None) -> None:
    assert pyramid_format(f"folder.tif/{name}") == format
    if format is None:
        with pytest.raises(OutputError, match=r"ends in \.tif, \.ome\.tif, \.ome\.zarr, \.dcm, not"):
            format_of(name)
    else:
        assert format_of(name) == format
        assert not stem_of(name).lower().endswith((".tif", ".tiff", ".ome", ".zarr", ".dcm", ".dicom"))


@pytest.mark.parametrize("format", NAMES)
@pytest.mark.parametrize("codec", COMPRESSIONS)
def test_a_compression_that_a_format_does_not_hold_is_one_clear_error(
    format: str, codec: str, tissue: RGB8, tmp_path: Path
) -> None:
    if (format, codec) in HELD:
        assert settings_of(codec).in_format(format).codec == codec
        return
    wanted = ", ".join(FORMATS[format].compressions)
    said = f"got compression '{codec}' for {FORMATS[format].title}; wanted one of {wanted}"
    with pytest.raises(InputError, match=re.escape(said)):
        write_array(tmp_path / NAMES[format], tissue, settings=settings_of(codec), mpp=MPP)
    assert list(tmp_path.iterdir()) == []


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(InputError, match="got compression 'lzw' for BigTIFF"):
        PyramidSettings(compression="lzw")
    with pytest.raises(InputError, match="got format='png'"):
        PyramidSettings(format="png", compression="jpeg")
    with pytest.raises(InputError, match="got format='bogus'; wanted one of tiff, ome-tiff"):
        PyramidSettings(format="bogus")
    with pytest.raises(InputError, match="only JPEG can be told that"):
        PyramidSettings(compression="webp", subsampling="420")
    with pytest.raises(InputError, match="only JPEG can be told that"):
        PyramidSettings(subsampling="420").in_format("ome-zarr")


@pytest.mark.parametrize("format", NAMES)
@pytest.mark.parametrize("wrong", [{"objective_power": float("inf")}, {"mpp": (0.25, float("nan"))}, {"mpp": (0, 1)}])
def test_numbers_that_are_none_are_refused(format: str, wrong: dict[str, Any], tissue: RGB8, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wanted positive numbers, or None"):
        write_array(tmp_path / NAMES[format], tissue, settings=settings_of(None), **{"mpp": MPP, **wrong})
    assert list(tmp_path.iterdir()) == []


def test_tiles_of_another_format_are_refused(tissue: RGB8, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tiles were encoded for 'tiff', and out\.ome\.zarr is 'ome-zarr'"):
        write_pyramid(tmp_path / "out.ome.zarr", (64, 64), iter([]), settings=settings_of(None), **BARE)


def test_dicom_holds_no_more_than_4_gigabytes_uncompressed(tmp_path: Path) -> None:
    from restain.slides.writer import settings_for

    with pytest.raises(OutputError, match=r"DICOM cannot hold 4908122112 bytes of pixels uncompressed"):
        settings_for(tmp_path / "a.dcm", PyramidSettings(compression="none"), size=(40_000, 40_000), mpp=MPP)


@pytest.mark.parametrize("codec", ["jpeg2000", "jpegxl", "webp", "jpeg"])
def test_quality_trades_size_for_error(codec: str, tissue: RGB8, tmp_path: Path) -> None:
    sizes, errors = [], []
    for quality in (30, 90, 100):
        path = tmp_path / f"{quality}.tif"
        write_array(path, tissue, settings=settings_of(codec, quality))
        sizes.append(path.stat().st_size)
        errors.append(np.abs(by_tifffile_level(path).astype(int) - tissue).mean())
    assert sizes[0] < sizes[1] < sizes[2]
    assert errors[0] > errors[1] > errors[2]


def by_tifffile_level(path: Path) -> RGB8:
    level: RGB8 = tifffile.imread(path, level=0)
    return level


# ---- missing tiles, further images ------------------------------------------------------------------------------


@pytest.mark.parametrize("format", NAMES)
def test_missing_tiles(format: str, tissue: RGB8, tmp_path: Path) -> None:
    """They stay missing in TIFF and Zarr; DICOM must have every frame, and shows white."""
    path, image = tmp_path / NAMES[format], tissue[:256, :256]
    write_with_holes(path, image, {(2, 0), (2, 1), (3, 0), (3, 1), (0, 3)}, settings=settings_of(None), mpp=MPP)
    hole = np.zeros((256, 256), np.bool_)
    hole[128:, :128] = hole[:64, 192:] = True
    for level, reader in enumerate((READERS[format][0], None)):
        if reader is not None and format != "ome-tiff" and format != "tiff":
            assert (reader(path).levels[level][hole] >= 254).all()
    with open_slide(path) as slide:
        pixels, known = slide.read_region((0, 0), 0, (256, 256))
        assert (pixels[hole] >= 254).all()
        assert np.abs(pixels[~hole].astype(int) - image[~hole]).mean() < 4
        if format == "dicom":
            assert known is None
        else:
            assert known is not None
            np.testing.assert_array_equal(~known, hole)
        second, known = slide.read_region((0, 0), 1, (128, 128))
        assert (second[64:, :64] >= 254).all()
        assert format == "dicom" or (known is not None and not known[64:, :64].any() and known[:64].all())
    if format == "ome-zarr":
        assert place_of(path / "0", 3, 1) is None
        assert place_of(path / "0", 3, 2) is not None


@pytest.mark.parametrize("format", NAMES)
def test_labels_travel_only_when_asked_and_names_never(format: str, svs: Path, fitted: Macenko, tmp_path: Path) -> None:
    path = tmp_path / NAMES[format]
    lossless = "none" if format != "ome-zarr" else "deflate"
    normalize_slide(svs, path, fitted, settings=settings_of(lossless))
    assert associated(path, format) == {}
    assert_without_secrets(path)
    normalize_slide(svs, path, fitted, settings=settings_of(lossless), associated="keep", overwrite=True)
    with open_slide(svs) as slide:
        wanted = {name: slide.associated_images[name]() for name in ("label", "macro")}
    found = associated(path, format)
    assert set(found) == {"label", "macro"}
    for name, image in found.items():
        np.testing.assert_array_equal(image, wanted[name])
    assert_without_secrets(path)


def associated(path: Path, format: str) -> dict[str, RGB8]:
    """Further images by name, by readers that are not restain's."""
    if format == "dicom":
        with openslide.OpenSlide(str(path / "level-0.dcm")) as slide:
            return {name: np.asarray(image)[..., :3] for name, image in slide.associated_images.items()}
    if format == "ome-zarr":
        group = zarr.open_group(path, mode="r")
        if "associated" not in group:
            return {}
        return {name: one["0"][:].transpose(1, 2, 0) for name, one in group["associated"].groups()}
    with tifffile.TiffFile(path) as tiff:
        pages = [page for page in tiff.pages if not page.is_tiled]
        if format == "ome-tiff":
            names = [
                image.attrib["Name"]
                for image in ElementTree.fromstring(tiff.ome_metadata).iter()
                if image.tag.endswith("}Image")
            ]
            assert names[1:] == [page.description for page in pages]
            assert [series.shape[:2] for series in tiff.series[1:]] == [page.shape[:2] for page in pages]
        return {page.description: page.asarray() for page in pages}


def assert_without_secrets(path: Path) -> None:
    for file in [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]:
        data = file.read_bytes()
        assert b"Secret" not in data
        assert b"01/02/03" not in data


# ---- streaming --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", NAMES)
def test_memory_does_not_grow_with_the_height(format: str, tmp_path: Path) -> None:
    side, across = 64, 6
    tile = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    settings = PyramidSettings(tile=side, compression="none", format=format)

    def peak(rows: int) -> int:
        path = tmp_path / f"{rows}{NAMES[format][3:]}"
        tiles = (encode_tile(tile, settings) for _ in range(rows * across))
        tracemalloc.start()
        write_pyramid(path, (side * across, side * rows), tiles, settings=settings, **BARE | {"mpp": MPP})
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(2)  # whatever is imported and kept is
    short, tall = peak(8), peak(64)
    # 336 tiles more are 4 MB of pixels; what is kept of each is where it lies in the file.
    assert tall - short < 400_000
