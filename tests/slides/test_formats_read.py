"""Formats that are read, on files made here by other writers than restain's: tifffile, zarr, pydicom."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from restain.color.images import RGB8
from restain.errors import MissingExtraError, SlideError, SlideWarning
from restain.methods.macenko import Macenko
from restain.slides.codecs import PyramidSettings
from restain.slides.pipeline import normalize_slide
from restain.slides.reader import open_slide
from restain.slides.writer import write_array

from .shards import overwrite

SMALL = PyramidSettings(tile=64)
APERIO = "Aperio Image Library v12.0.0\r\n423x301 (64x64) J2K/{} Q=70|AppMag = 40|MPP = 0.25"


def halves(image: RGB8, count: int) -> list[RGB8]:
    levels = [image]
    for _ in range(count):
        height, width = levels[-1].shape[0] // 2 * 2, levels[-1].shape[1] // 2 * 2
        blocks = levels[-1][:height, :width].reshape(height // 2, 2, width // 2, 2, 3)
        levels.append(blocks.mean(axis=(1, 3)).round().astype(np.uint8))
    return levels


# ---- Aperio's JPEG 2000 -----------------------------------------------------------------------------------------


def j2k_tiles(image: RGB8, side: int = 64) -> list[bytes]:
    padded = np.pad(image, ((0, -image.shape[0] % side), (0, -image.shape[1] % side), (0, 0)), mode="edge")
    return [
        bytes(imagecodecs.jpeg2k_encode(np.ascontiguousarray(padded[y : y + side, x : x + side]), level=0, mct=False,
                                        reversible=True, codecformat="j2k"))
        for y in range(0, padded.shape[0], side)
        for x in range(0, padded.shape[1], side)
    ]  # fmt: skip


@pytest.mark.parametrize(("code", "colours"), [("aperio_jp2000_rgb", "RGB"), ("aperio_jp2000_ycbc", "YCbCr")])
def test_aperio_s_jpeg_2000(code: str, colours: str, tissue: RGB8, tmp_path: Path) -> None:
    """Compressions 33005 and 33003: JPEG 2000 as Aperio writes it; here without loss, so that RGB comes back equal."""
    path = tmp_path / "slide.svs"
    with tifffile.TiffWriter(path) as tiff:
        for level in halves(tissue, 2)[::2]:
            held = np.asarray(Image.fromarray(level).convert(colours))
            tiff.write(
                iter(j2k_tiles(held)), shape=level.shape, dtype=np.uint8, tile=(64, 64), photometric="rgb",
                compression=code, description=APERIO.format(colours), metadata=None,
            )  # fmt: skip
    with open_slide(path) as slide:
        assert slide.format == "openslide: aperio"
        assert slide.mpp == (0.25, 0.25)
        assert slide.objective_power == 40
        assert slide.level_dimensions == ((423, 301), (105, 75))
        pixels, known = slide.read_region((0, 0), 0, slide.dimensions)
        assert np.abs(pixels.astype(int) - tissue).max() <= (0 if colours == "RGB" else 3)  # cut to whole levels
        assert known is None


# ---- TIFF pyramids ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["jpeg2000", "jpegxl", "webp", "zstd", "deflate", "lzw", "lzma", None])
@pytest.mark.parametrize("ome", [False, True])
def test_pyramids_by_tifffile(compression: str | None, ome: bool, tissue: RGB8, tmp_path: Path) -> None:
    levels = halves(tissue, 2)
    path = tmp_path / ("slide.ome.tif" if ome else "slide.tif")
    lossless = {"compressionargs": {"lossless": True}} if compression in ("webp", "jpegxl") else {}
    options: dict[str, Any] = {"photometric": "rgb", "tile": (64, 64), "compression": compression, **lossless}
    with tifffile.TiffWriter(path, bigtiff=True, ome=ome) as tiff:
        if ome:
            size = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.3, "PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
            tiff.write(levels[0], subifds=2, metadata={"axes": "YXS", **size}, **options)
        else:
            centimetres = {"resolution": (40_000, 10_000 / 0.3), "resolutionunit": "CENTIMETER"}
            tiff.write(levels[0], subfiletype=0, metadata=None, **centimetres, **options)
        for level in levels[1:]:
            tiff.write(level, subfiletype=1, metadata=None, **options)
    with open_slide(path) as slide:
        assert slide.level_dimensions == ((423, 301), (211, 150), (105, 75))
        assert slide.mpp == pytest.approx((0.25, 0.3))
        for number, level in enumerate(levels):
            size = slide.level_dimensions[number]
            np.testing.assert_array_equal(slide.read_region((0, 0), number, size)[0], level)


# ---- OME-Zarr ---------------------------------------------------------------------------------------------------


def write_zarr(
    path: Path, levels: list[RGB8], *, version: str = "0.4", axes: str = "cyx", unit: str | None = "micrometer",
    scale: tuple[float, float] = (0.25, 0.3), above: str = "", options: dict[str, Any] | None = None, **more: Any,
) -> Any:  # fmt: skip
    """An OME-Zarr by the zarr package; `scale` is (x, y), `above` a group that the image lies in."""
    zarr = pytest.importorskip("zarr")
    root = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    group = root.create_group(above) if above else root
    datasets = []
    for number, level in enumerate(levels):
        array = level.transpose(2, 0, 1)
        if "c" not in axes:
            array = array[0]
        for position, axis in enumerate(axes):
            if axis in "tz":
                array = np.expand_dims(array, position)
        chunks = tuple(64 if axis in "yx" else 1 for axis in axes)
        stored = group.create_array(
            str(number), shape=array.shape, dtype=array.dtype, **({"chunks": chunks, "fill_value": 7} | (options or {}))
        )
        stored[...] = array
        values = {"x": scale[0] * 2**number, "y": scale[1] * 2**number}
        change = {"type": "scale", "scale": [values.get(axis, 1.0) for axis in axes]}
        datasets.append({"path": str(number), "coordinateTransformations": [change]})
    described = [
        {"name": axis, "type": "space" if axis in "zyx" else "channel"}
        | ({"unit": unit} if unit and axis in "zyx" else {})
        for axis in axes
    ]
    image = {"axes": described, "datasets": datasets, **more}
    if version == "0.4":
        group.attrs["multiscales"] = [{"version": version, **image}]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [image]}
    return root


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["cyx", "tczyx", "yx", "yxc", "zcyx"])
def test_ome_zarr(version: str, axes: str, tissue: RGB8, tmp_path: Path) -> None:
    image = tissue if "c" in axes else np.repeat(tissue[..., :1], 3, axis=2)
    levels = halves(image, 2)
    path = tmp_path / "slide.zarr"
    if axes == "yxc":
        write_zarr(path, levels, version=version)
        zarr = pytest.importorskip("zarr")
        group = zarr.open_group(path, mode="a")
        for number, level in enumerate(levels):
            del group[str(number)]
            group.create_array(str(number), data=level, chunks=(64, 64, 3))
        holder = group.attrs["ome" if version == "0.5" else "multiscales"]
        one = holder["multiscales"][0] if version == "0.5" else holder[0]
        one["axes"] = [one["axes"][1], one["axes"][2], one["axes"][0]]
        for item in one["datasets"]:
            scale = item["coordinateTransformations"][0]["scale"]
            item["coordinateTransformations"][0]["scale"] = [scale[1], scale[2], scale[0]]
        group.attrs["ome" if version == "0.5" else "multiscales"] = holder
    else:
        write_zarr(path, levels, version=version, axes=axes)
    with open_slide(path) as slide:
        assert slide.format == f"ome-zarr {version}"
        assert slide.level_dimensions == ((423, 301), (211, 150), (105, 75))
        assert slide.mpp == pytest.approx((0.25, 0.3))
        assert slide.tile_sizes[0] == (64, 64)
        for number, level in enumerate(levels):
            pixels, known = slide.read_region((0, 0), number, slide.level_dimensions[number])
            np.testing.assert_array_equal(pixels, level)
            assert known is None
        part, known = slide.read_region((-10, 250), 0, (100, 100))
        np.testing.assert_array_equal(part[:51, 10:], image[250:, :90])
        assert known is not None
        assert known.sum() == 51 * 90
        assert (part[~known] == 255).all()
        assert slide.read_region((1000, 1000), 0, (5, 5))[1] is not None


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_missing_chunks_are_padding(version: str, tissue: RGB8, tmp_path: Path) -> None:
    write_zarr(tmp_path / "s.zarr", [tissue], version=version, options={"chunks": (3, 64, 64)})
    key = "0/c/0/1/2" if version == "0.5" else "0/0.1.2"
    (tmp_path / "s.zarr" / key).unlink()
    with open_slide(tmp_path / "s.zarr") as slide:
        pixels, known = slide.read_region((0, 0), 0, slide.dimensions)
    hole = np.zeros(tissue.shape[:2], np.bool_)
    hole[64:128, 128:192] = True
    assert known is not None
    np.testing.assert_array_equal(~known, hole)
    assert (pixels[hole] == 255).all()
    np.testing.assert_array_equal(pixels[~hole], tissue[~hole])


def test_shards_and_other_codecs(tissue: RGB8, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    options = {"chunks": (1, 64, 64), "shards": (3, 128, 128), "compressors": [zarr.codecs.BloscCodec()]}
    write_zarr(tmp_path / "s.zarr", [tissue], version="0.5", options=options)
    with open_slide(tmp_path / "s.zarr") as slide:
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, slide.dimensions)[0], tissue)


def test_sixteen_bits_and_alpha(tissue: RGB8, tmp_path: Path) -> None:
    alpha = np.full(tissue.shape[:2], 255, np.uint8)
    alpha[:40] = 0
    write_zarr(tmp_path / "a.zarr", [np.dstack([tissue, alpha])])
    with open_slide(tmp_path / "a.zarr") as slide:
        pixels, known = slide.read_region((0, 0), 0, slide.dimensions)
        assert known is not None
        assert not known[:40].any()
        assert known[40:].all()
        np.testing.assert_array_equal(pixels[40:], tissue[40:])
    write_zarr(tmp_path / "b.zarr", [tissue.astype(np.uint16) * 257])  # type: ignore[list-item]
    with open_slide(tmp_path / "b.zarr") as slide:
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, slide.dimensions)[0], tissue)


@pytest.mark.parametrize(
    ("unit", "scale", "mpp"),
    [
        ("millimeter", (0.00025, 0.0003), (0.25, 0.3)),
        ("nanometer", (250.0, 300.0), (0.25, 0.3)),
        (None, (1.0, 1.0), None),
        ("parsec", (1.0, 1.0), None),
    ],
)
def test_units(
    unit: str | None, scale: tuple[float, float], mpp: tuple[float, float] | None, tissue: RGB8, tmp_path: Path
) -> None:
    write_zarr(tmp_path / "s.zarr", [tissue], unit=unit, scale=scale)
    with open_slide(tmp_path / "s.zarr") as slide:
        assert slide.mpp == (None if mpp is None else pytest.approx(mpp))


def test_a_scale_of_the_whole_image_counts_too(tissue: RGB8, tmp_path: Path) -> None:
    whole = {"coordinateTransformations": [{"type": "scale", "scale": [1.0, 2.0, 2.0]}]}
    write_zarr(tmp_path / "s.zarr", [tissue], **whole)
    with open_slide(tmp_path / "s.zarr") as slide:
        assert slide.mpp == pytest.approx((0.5, 0.6))


def test_what_bioformats2raw_writes(tissue: RGB8, tmp_path: Path) -> None:
    """Images in numbered groups below one that says so."""
    root = write_zarr(tmp_path / "s.zarr", [tissue], axes="tczyx", above="0")
    root.attrs["bioformats2raw.layout"] = 3
    with open_slide(tmp_path / "s.zarr") as slide:
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, slide.dimensions)[0], tissue)


def test_what_bioformats2raw_writes_in_version_0_5(tissue: RGB8, tmp_path: Path) -> None:
    """There the key lies under "ome"."""
    root = write_zarr(tmp_path / "s.zarr", [tissue], version="0.5", axes="tczyx", above="0")
    root.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    with open_slide(tmp_path / "s.zarr") as slide:
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, slide.dimensions)[0], tissue)


OME = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Instrument ID="Instrument:0">'
    '<Objective ID="Objective:0" NominalMagnification="{}"/></Instrument><Image ID="Image:0"><Pixels ID="Pixels:0" '
    'DimensionOrder="XYCZT" Type="uint8" SizeX="423" SizeY="301" SizeC="3" SizeZ="1" SizeT="1" Interleaved="true">'
    '<Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
)


@pytest.mark.parametrize("power", ["Infinity", "-5", "1e308", "NaN", "40"])
@pytest.mark.parametrize("kind", ["aperio.svs", "restain.tif", "a.ome.tif", "a.ome.zarr"])
def test_powers_that_no_objective_has_are_not_believed(kind: str, power: str, tissue: RGB8, tmp_path: Path) -> None:
    path = tmp_path / kind
    if kind == "a.ome.zarr":
        write_zarr(path, [tissue]).attrs["restain"] = {"objective_power": float(power)}
    else:
        description = {
            "aperio.svs": f"Aperio Image Library v12\r\n423x301 (64x64) LZW|AppMag = {power}",
            "restain.tif": f'{{"slide": {{"objective_power": {power}}}}}',
            "a.ome.tif": OME.format("INF" if power == "Infinity" else power),
        }[kind]
        plain: dict[str, Any] = {"photometric": "rgb", "compression": "lzw", "metadata": None}
        tifffile.imwrite(path, tissue, tile=(64, 64), description=description, **plain)
    if power == "40" or (kind, power) == ("aperio.svs", "NaN"):  # which OpenSlide leaves out itself
        with open_slide(path) as slide:
            assert (slide.objective_power, slide.notes) == (40 if power == "40" else None, [])
        return
    with pytest.warns(SlideWarning, match=rf"{kind} claims an objective of .*x; taken as unknown"):
        slide = open_slide(path)
    with slide:
        assert (slide.objective_power, len(slide.notes)) == (None, 1)


def planes(path: Path, tissue: RGB8) -> None:
    root = write_zarr(path, [tissue], axes="zcyx")
    del root["0"]
    root.create_array("0", data=np.zeros((4, 3, 64, 64), np.uint8))


def channels(path: Path, tissue: RGB8) -> None:
    write_zarr(path, [np.dstack([tissue, tissue[..., :2]])])


def floats(path: Path, tissue: RGB8) -> None:
    write_zarr(path, [(tissue / 255).astype(np.float32)])  # type: ignore[list-item]


def no_image(path: Path, _: RGB8) -> None:
    pytest.importorskip("zarr").open_group(path, mode="w").attrs["a"] = 1


def no_array(path: Path, tissue: RGB8) -> None:
    del write_zarr(path, [tissue])["0"]


def no_json(path: Path, tissue: RGB8) -> None:
    write_zarr(path, [tissue], version="0.5")
    (path / "zarr.json").write_text("{")


def wrong_axes(path: Path, tissue: RGB8) -> None:
    root = write_zarr(path, [tissue])
    image = root.attrs["multiscales"]
    image[0]["axes"].pop()
    root.attrs["multiscales"] = image


REFUSED: dict[Callable[[Path, RGB8], None], str] = {
    planes: "has 4 planes along z",
    channels: "has 5 channels; wanted RGB",
    floats: "holds float32; wanted 8 or 16 bits",
    no_image: "no OME-Zarr image: there are no multiscales",
    no_array: "cannot be read: zarr: ",
    no_json: "cannot be read: zarr: ",
    wrong_axes: "has axes c, y for 3 dimensions",
}


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_what_is_no_slide_is_told_in_one_line(make: Callable[[Path, RGB8], None], tissue: RGB8, tmp_path: Path) -> None:
    make(tmp_path / "s.zarr", tissue)
    with pytest.raises(SlideError, match=REFUSED[make]) as error:
        open_slide(tmp_path / "s.zarr")
    assert "\n" not in str(error.value)


def test_a_damaged_chunk_is_told_with_its_place(tissue: RGB8, tmp_path: Path) -> None:
    write_array(tmp_path / "s.ome.zarr", tissue, settings=SMALL)
    overwrite(tmp_path / "s.ome.zarr" / "0", 1, 2, kept=0)
    pytest.importorskip("zarr")
    with open_slide(tmp_path / "s.ome.zarr") as slide:
        with pytest.raises(SlideError, match=r"s\.ome\.zarr is damaged in the tile at \(128, 64\)"):
            slide.read_region((130, 70), 0, (20, 20))
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, (64, 64))[0], tissue[:64, :64])


def test_without_the_zarr_package_the_message_says_how_to_get_it(
    tissue: RGB8, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_array(tmp_path / "s.ome.zarr", tissue, settings=SMALL)  # which needs no package
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    with pytest.raises(MissingExtraError, match=r"reading s\.ome\.zarr needs zarr.*pip install 'restain\[zarr\]'"):
        open_slide(tmp_path / "s.ome.zarr")


# ---- DICOM ------------------------------------------------------------------------------------------------------


def test_dicom_of_another_writer(tissue: RGB8, tmp_path: Path) -> None:
    """TILED_SPARSE, where every frame says where it lies and some are missing; by pydicom."""
    pydicom = pytest.importorskip("pydicom")
    write_array(
        tmp_path / "a.dcm", tissue[:128, :192], settings=PyramidSettings(tile=64, compression="none"), mpp=(0.5, 0.5)
    )
    data = pydicom.dcmread(tmp_path / "a.dcm" / "level-0.dcm")
    frames = data.pixel_array
    kept = [0, 2, 3, 4]
    places = []
    for index in kept:
        place = pydicom.Dataset()
        place.ColumnPositionInTotalImagePixelMatrix = index % 3 * 64 + 1
        place.RowPositionInTotalImagePixelMatrix = index // 3 * 64 + 1
        place.XOffsetInSlideCoordinateSystem = place.YOffsetInSlideCoordinateSystem = 0
        place.ZOffsetInSlideCoordinateSystem = 0
        item = pydicom.Dataset()
        item.PlanePositionSlideSequence = [place]
        places.append(item)
    data.PerFrameFunctionalGroupsSequence = places
    data.DimensionOrganizationType = "TILED_SPARSE"
    data.NumberOfFrames = len(kept)
    data.PixelData = np.ascontiguousarray(frames[kept]).tobytes()
    (tmp_path / "sparse").mkdir()
    data.save_as(tmp_path / "sparse" / "one.dcm")
    with open_slide(tmp_path / "sparse") as slide:
        assert slide.format == "openslide: dicom"
        assert slide.mpp == (0.5, 0.5)
        pixels, known = slide.read_region((0, 0), 0, slide.dimensions)
    hole = np.zeros((128, 192), np.bool_)
    hole[:64, 64:128] = hole[64:, 128:] = True
    assert known is not None
    np.testing.assert_array_equal(~known, hole)
    np.testing.assert_array_equal(pixels[~hole], tissue[:128, :192][~hole])


@pytest.mark.parametrize("name", ["out.tif", "out.ome.tif", "out.ome.zarr", "out.dcm"])
@pytest.mark.parametrize("slide", ["svs", "dicom"])
def test_real_slides_go_through_every_format(
    name: str, slide: str, data: Path, fitted: Macenko, tmp_path: Path
) -> None:
    wanted = {"svs": ".svs", "dicom": ".dcm"}[slide]
    source = next((path for path in sorted((data / "wsi").iterdir()) if path.suffix == wanted), None)
    if source is None:
        pytest.skip(f"no {wanted} in {data / 'wsi'}")
    if name.endswith("zarr"):
        pytest.importorskip("zarr")
    if name.endswith("dcm"):
        pytest.importorskip("pydicom")
    result = normalize_slide(source, tmp_path / name, fitted, max_pixels=1_000_000)
    normalize_slide(source, tmp_path / "reference.tif", fitted, appearance=result.appearance)
    with (
        open_slide(source) as before,
        open_slide(tmp_path / name) as after,
        open_slide(tmp_path / "reference.tif") as same,
    ):
        assert after.dimensions == before.dimensions
        assert after.mpp == pytest.approx(before.mpp)
        assert after.level_dimensions == same.level_dimensions
        one, other = (s.read_region((500, 300), 0, (400, 300))[0].astype(int) for s in (after, same))
        # DICOM holds the same JPEG; zstd loses nothing, and JPEG of RGB, as in OME-TIFF, loses something else.
        assert np.abs(one - other).mean() < (1e-9 if name.endswith("dcm") else 3)
