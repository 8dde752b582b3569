"""Valid files with bytes changed, cut out, doubled and moved: a result or a `RestainError`, nothing else, and no hang.

Seeded: the same examples in every run. RESTAIN_FUZZ multiplies their number.
"""

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import restain
from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8
from restain.errors import RestainError
from restain.methods.macenko import Macenko
from restain.profiles import load_profile
from restain.slides.reader import open_slide
from restain.slides.writer import PyramidSettings, write_array

from .hanging import in_time
from .making import Write, picture, small_pyramid, tiff, tiff_with_subifds

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

MORE = int(os.environ.get("RESTAIN_FUZZ", "1"))

Edit = tuple[str, float, float, int]
"""What is done, where (a share of the file), how far (a share of it), and a byte."""


def fuzzed(count: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=count * MORE,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


# Half of the places lie in the first twentieth, where headers are.
place = st.floats(0, 0.05) | st.floats(0, 1)
edits = st.lists(
    st.tuples(
        st.sampled_from(["set", "set", "set", "cut", "double", "zero", "big"]), place, place, st.integers(0, 255)
    ),
    min_size=1,
    max_size=4,
)


def changed(data: bytes, todo: list[Edit]) -> bytes:
    """The file with edits made, in their order."""
    made = bytearray(data)
    for what, where, length, byte in todo:
        at = min(int(where * len(made)), len(made) - 1)
        end = min(at + max(int(length * min(len(made), 400)), 1), len(made))
        match what:
            case "set":
                made[at] = byte
            case "cut":
                del made[at:end]
            case "double":
                made[at:at] = made[at:end]
            case "zero":
                made[at:end] = bytes(end - at)
            case "big":
                made[at : at + 4] = b"\xff\xff\xff\x7f"
        if not made:
            made += b"\0"
    return bytes(made)


def look(path: Path) -> str:
    """Open a slide and read of all it offers; "read", or what its error says."""
    with warnings.catch_warnings(), in_time():
        warnings.simplefilter("ignore")
        try:
            with open_slide(path) as slide:
                width, height = slide.dimensions
                assert width >= 1
                assert height >= 1
                assert slide.mpp is None or all(0.02 <= value <= 100 for value in slide.mpp)
                for level, (wide, high) in enumerate(slide.level_dimensions):
                    for x, y in ((0, 0), (width // 2, height // 2), (width - 1, height - 1), (-5, -5)):
                        pixels, known = slide.read_region((x, y), level, (min(wide, 70), min(high, 70)))
                        assert pixels.shape == (min(high, 70), min(wide, 70), 3)
                        assert pixels.dtype == np.uint8
                        assert level or known is None or (pixels[~known] == 255).all()
                if width * height < 1_000_000:
                    slide.thumbnail(50)
        except RestainError as error:
            return one_line(error)
    return "read"


def one_line(error: RestainError) -> str:
    message = str(error)
    assert "\n" not in message
    return message


# ---- slides and images ------------------------------------------------------------------------------------------


def aperio(path: Path, image: RGB8) -> None:
    text = "Aperio Image Library v11.2.1\r\n150x100 (64x64) JPEG/RGB|AppMag = 20|MPP = 0.5"
    tifffile.imwrite(path, image, photometric="rgb", tile=(64, 64), compression="jpeg", description=text, metadata=None)


KINDS: dict[str, tuple[int, Write]] = {
    "pyramid.tif": (60, small_pyramid),
    "aperio.svs": (60, aperio),
    "lzw.tif": (60, tiff(tile=(64, 64), compression="lzw")),
    "webp.tif": (60, tiff(tile=(64, 64), compression="webp")),
    "jpeg2000.tif": (40, tiff(tile=(64, 64), compression="jpeg2000")),
    "strips.tif": (40, tiff(rowsperstrip=16, compression="lzw")),
    "16 bits.tif": (30, lambda path, image: tifffile.imwrite(path, image.astype(np.uint16) * 257, tile=(64, 64))),
    "subifds.ome.tif": (60, tiff_with_subifds),
    "i.png": (40, picture()),
    "i.jpg": (40, picture()),
    "i.webp": (30, picture()),
    "i.bmp": (30, picture()),
    "i.gif": (30, picture()),
    "i.jp2": (30, picture()),
    "i.ppm": (20, picture()),
}


@pytest.mark.parametrize("name", KINDS)
def test_slides_and_images(name: str, tissue: RGB8, tmp_path: Path) -> None:
    count, write = KINDS[name]
    write(tmp_path / name, tissue[:100, :150].copy())
    data = (tmp_path / name).read_bytes()
    assert look(tmp_path / name) == "read"
    (tmp_path / "changed").mkdir()
    seen: set[bool] = set()

    @seed(0)
    @fuzzed(count)
    @given(todo=edits)
    def fuzz(todo: list[Edit]) -> None:
        path = tmp_path / "changed" / name
        path.write_bytes(changed(data, todo))
        seen.add(look(path) == "read")

    fuzz()
    assert False in seen  # the changes matter


def test_headers_of_tiff_number_by_number(tissue: RGB8, tmp_path: Path) -> None:
    """Every field of the first directory, set to what is least and most of use to anybody."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, tissue[:100, :150], photometric="rgb", tile=(64, 64), compression="lzw", byteorder="<")
    data = path.read_bytes()
    with tifffile.TiffFile(path) as handle:
        start = handle.pages.first.offset
        entries = len(handle.pages.first.tags)
    refused = 0
    for entry in range(entries):
        for offset, value in (
            (2, b"\xff\xff"),
            (4, bytes(4)),
            (4, b"\xff\xff\xff\xff"),
            (8, bytes(4)),
            (8, b"\xff" * 4),
        ):
            at = start + 2 + 12 * entry + offset
            path.write_bytes(data[:at] + value + data[at + len(value) :])
            refused += look(path) != "read"
    assert refused > entries


@seed(0)
@fuzzed(12)
@given(todo=edits, which=st.integers(0, 100))
def test_zarr(tissue_zarr: dict[str, bytes], tmp_path: Path, todo: list[Edit], which: int) -> None:
    folder = tmp_path / "a.ome.zarr"
    names = sorted(tissue_zarr, key=lambda name: (not name.endswith(".json"), name))
    chosen = names[which % len(names)]
    for name, data in tissue_zarr.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(changed(data, todo) if name == chosen else data)
    look(folder)


@pytest.fixture(scope="module")
def tissue_zarr(tissue: RGB8, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    pytest.importorskip("zarr")
    path = tmp_path_factory.mktemp("zarr") / "a.ome.zarr"
    write_array(path, tissue[:100, :150].copy(), settings=PyramidSettings(tile=64, compression="zstd"), mpp=(0.5, 0.5))
    return {str(found.relative_to(path)): found.read_bytes() for found in path.rglob("*") if found.is_file()}


# ---- normalizers, profiles, histograms --------------------------------------------------------------------------


def load_normalizer(path: Path) -> None:
    normalizer = restain.load(path)
    normalizer.transform(np.full((4, 4, 3), 200, np.uint8))


def load_histogram(path: Path) -> None:
    histogram = ColorHistogram.load(path)
    assert histogram.counts.shape == histogram.codes.shape
    Macenko().fit(histogram)


@pytest.mark.parametrize("kind", ["normalizer", "histogram", "profile"])
def test_saved_files(kind: str, tissue: RGB8, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    match kind:
        case "normalizer":
            Macenko().fit(tissue[:40, :40].copy()).save(path)
        case "histogram":
            ColorHistogram.from_image(tissue[:40, :40].copy()).save(path)
        case "profile":
            load_profile("he").save(path)
    load = load_normalizer if kind == "normalizer" else load_histogram
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")

    def attempt(changed_data: bytes) -> None:
        path.write_bytes(changed_data)
        with warnings.catch_warnings(), in_time():
            warnings.simplefilter("ignore")  # values that can still be fitted may be told
            try:
                load(path)
            except RestainError as error:
                one_line(error)

    @seed(0)
    @fuzzed(60)
    @given(todo=edits)
    def anywhere(todo: list[Edit]) -> None:
        attempt(changed(data, todo))

    @seed(0)
    @fuzzed(60)
    @given(todo=edits)
    def in_the_header(todo: list[Edit]) -> None:
        """With its length put right, so that what is changed is seen by more than the first check."""
        header = changed(data[8 : 8 + size], todo)
        attempt(len(header).to_bytes(8, "little") + header + data[8 + size :])

    values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just([]) | st.just({})

    @seed(0)
    @fuzzed(80)
    @given(which=st.integers(0, 1000), value=values)
    def in_the_facts(which: int, value: Any) -> None:
        """One value of the JSON inside replaced by another."""
        header = json.loads(data[8 : 8 + size])
        facts = json.loads(header["__metadata__"]["restain"])
        places = list(_places(facts))
        holder, key = places[which % len(places)]
        holder[key] = value
        header["__metadata__"]["restain"] = json.dumps(facts)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        attempt(len(text).to_bytes(8, "little") + text + data[8 + size :])

    anywhere()
    in_the_header()
    in_the_facts()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of nested dicts and lists."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])
