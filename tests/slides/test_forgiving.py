"""Damaged tiles: told with their position, and, when asked, left out or filled without harm to the others."""

import json
import shutil
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile

from restain.color.images import RGB8
from restain.errors import InputError, SlideError, SlideWarning
from restain.methods.macenko import Macenko
from restain.phantom import Scanner, make_phantom
from restain.slides.forgiving import ForgivingSlide
from restain.slides.pipeline import normalize_slide
from restain.slides.reader import OnError, Slide, open_slide, pieces
from restain.slides.sample import sample_slide
from restain.slides.separate import SeparationSettings, separate_file
from restain.slides.virtual import NormalizedSlide
from restain.slides.writer import PyramidSettings, write_array

from ..forking import Forks
from ..running import Run
from .shards import overwrite

SIDE = 64
SETTINGS = PyramidSettings(tile=SIDE)
BAD = [(1, 2), (3, 0), (4, 6)]  # (row, column); the last is at the lower right corner, where tiles reach beyond
PLACES = {(SIDE * column, SIDE * row) for row, column in BAD}


@pytest.fixture(scope="module")
def image() -> RGB8:
    return make_phantom(300, 420, seed=7, scanner=Scanner(white=(236.0, 231.0, 228.0), noise=1.0)).image


def damage(path: Path, tiles: list[tuple[int, int]], page: int = 0) -> None:
    """Overwrite tiles (row, column) of a page but for their first 16 bytes."""
    with tifffile.TiffFile(path) as handle:
        found = handle.pages[page]
        across = -(-found.imagewidth // SIDE)
        places = [(found.dataoffsets[r * across + c], found.databytecounts[r * across + c]) for r, c in tiles]
    with path.open("r+b") as stream:
        for offset, count in places:
            stream.seek(offset + 16)
            stream.write(bytes(count - 16))


def write(path: Path, image: RGB8, **options: Any) -> Path:
    tifffile.imwrite(path, image, photometric="rgb", tile=(SIDE, SIDE), **options)
    return path


KINDS: dict[str, dict[str, Any]] = {
    "OpenSlide": {"compression": "lzw"},
    "tifffile": {"compression": "webp", "compressionargs": {"lossless": True}},
}


@pytest.fixture(params=KINDS)
def files(request: pytest.FixtureRequest, image: RGB8, tmp_path: Path) -> tuple[Path, Path]:
    """A whole slide, and the same with three damaged tiles."""
    whole, broken = (write(tmp_path / name, image, **KINDS[request.param]) for name in ("whole.tif", "broken.tif"))
    damage(broken, BAD)
    with open_slide(broken) as slide:
        assert slide.format.startswith("openslide" if request.param == "OpenSlide" else "tiff")
    return whole, broken


@pytest.mark.parametrize("on_error", ["skip", "fill"])
def test_transparency_where_tiles_are_damaged(on_error: OnError, files: tuple[Path, Path], image: RGB8) -> None:
    whole, broken = files
    size = (image.shape[1] + 20, image.shape[0] + 20)
    with open_slide(whole) as slide, open_slide(broken, on_error=on_error) as forgiven:
        assert isinstance(forgiven, ForgivingSlide)
        wanted = slide.read_rgba((-10, -10), 0, size)
        assert sorted(np.unique(wanted[..., 3])) == [0, 255]
        bad = np.zeros(wanted.shape[:2], np.bool_)
        bad[10:-10, 10:-10] = of_damage(image)
        found = forgiven.read_rgba((-10, -10), 0, size)
        np.testing.assert_array_equal(found[~bad][:, 3], wanted[~bad][:, 3])
        np.testing.assert_array_equal(found[~bad & (found[..., 3] > 0)], wanted[~bad & (found[..., 3] > 0)])
        assert not found[bad][:, 3].any()
        forgiven.glass = np.array([230.0, 220.0, 210.4])
        filled = np.unique(forgiven.read_rgba((-10, -10), 0, size)[bad], axis=0)
        assert filled.tolist() == [[255, 255, 255, 0] if on_error == "skip" else [230, 220, 210, 255]]


def of_damage(image: RGB8) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which pixels lie in damaged tiles."""
    mask = np.zeros(image.shape[:2], np.bool_)
    for row, column in BAD:
        mask[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE] = True
    return mask


def normalized(source: Path, on_error: OnError, **options: Any) -> tuple[RGB8, list[int], tuple[str, ...]]:
    """Level 0, its tiles' sizes in the file, and the warnings of the result."""
    output = source.with_name(f"{source.stem}.{on_error}.{options.get('workers')}.tif")
    options = {"settings": SETTINGS} | options
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = normalize_slide(source, output, Macenko().fit("he"), on_error=on_error, **options)
    told = [str(w.message) for w in caught if issubclass(w.category, SlideWarning)]
    assert told == list(result.warnings)
    with tifffile.TiffFile(output) as handle:
        return handle.pages.first.asarray(), list(handle.pages.first.databytecounts), result.warnings


# ---- stop -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 4])
def test_by_default_damage_is_an_error_that_says_where(files: tuple[Path, Path], workers: int, fitted: Macenko) -> None:
    """Threads: OpenSlide refuses everything after one error, and a good tile must not get the blame."""
    appearance = fitted.estimate(sample_slide(files[0]))
    for _ in range(5 if workers > 1 else 1):
        with pytest.raises(SlideError, match=r"broken\.tif is damaged in the tile at \(128, 64\)") as caught:
            normalize_slide(files[1], files[1].with_name("out.tif"), fitted, appearance=appearance, workers=workers)
        assert "\n" not in str(caught.value)
    with pytest.raises(
        SlideError, match=r"\((128, 64|0, 192|384, 256)\)"
    ):  # now by the sample, which reads an overview
        normalize_slide(files[1], files[1].with_name("out.tif"), fitted)
    assert not files[1].with_name("out.tif").exists()


def test_a_slide_can_be_read_on_after_an_error(files: tuple[Path, Path], image: RGB8) -> None:
    with open_slide(files[1]) as slide:
        for row, column in BAD:
            with pytest.raises(SlideError, match=rf"\({SIDE * column}, {SIDE * row}\)"):
                slide.read_region((SIDE * column, SIDE * row), 0, (8, 8))
            np.testing.assert_array_equal(slide.read_region((64, 0), 0, (64, 64))[0], image[:64, 64:128])


def test_errors_of_one_thread_do_not_reach_others(files: tuple[Path, Path], image: RGB8) -> None:
    with open_slide(files[1]) as slide, ThreadPoolExecutor(4) as pool:

        def read(number: int) -> bool:
            if number % 3:
                pixels, _ = slide.read_region((64, 0), 0, (64, 64))
                return np.array_equal(pixels, image[:64, 64:128])
            with pytest.raises(SlideError, match=r"\(128, 64\)"):
                slide.read_region((128, 64), 0, (64, 64))
            return True

        assert all(pool.map(read, range(120)))


# ---- skip and fill ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_error", ["skip", "fill"])
def test_all_but_the_damaged_tiles_is_as_without_damage(
    on_error: OnError, files: tuple[Path, Path], image: RGB8, fitted: Macenko
) -> None:
    appearance = fitted.estimate(sample_slide(files[0]))
    wanted, sizes, none = normalized(files[0], on_error, appearance=appearance)
    assert none == ()
    pixels, counts, told = normalized(files[1], on_error, appearance=appearance)
    bad = of_damage(image)
    np.testing.assert_array_equal(pixels[~bad], wanted[~bad])
    assert len(told) == 1
    assert told[0].startswith("broken.tif has damaged tiles, which were ")
    assert "3 of level 0 at (128, 64), (0, 192), (384, 256)" in told[0]
    numbers = [row * 7 + column for row, column in BAD]
    if on_error == "skip":
        assert [number for number, count in enumerate(counts) if not count] == numbers  # padding, as missing tiles are
        assert [size for n, size in enumerate(sizes) if n not in numbers] == [size for size in counts if size]
    else:
        assert all(counts)
        glass = Macenko().fit("he").reference_
        assert glass is not None
        assert np.abs(pixels[bad].astype(float) - glass.white_point).max() <= 2.5  # a grey level is JPEG's
        assert pixels[bad].reshape(-1, 3).std(axis=0).max() <= 0.5


@pytest.mark.parametrize("on_error", ["skip", "fill"])
def test_the_estimate_does_not_see_damage(on_error: OnError, files: tuple[Path, Path], image: RGB8) -> None:
    with open_slide(files[1], on_error=on_error) as slide:
        histogram = sample_slide(slide, tile=SIDE)
    kept = image[~of_damage(image)]
    assert histogram.counts.sum() == len(kept)
    assert len(histogram.codes) == len(np.unique(kept, axis=0))


@pytest.mark.parametrize("on_error", ["skip", "fill"])
def test_the_result_does_not_depend_on_workers(on_error: OnError, files: tuple[Path, Path]) -> None:
    first = normalized(files[1], on_error, workers=1)
    second = normalized(files[1], on_error, workers=4)
    np.testing.assert_array_equal(first[0], second[0])
    assert first[1:] == second[1:]


@pytest.mark.parametrize(("x", "y"), [(0, 0), (100, 50), (150, 100), (-30, 170), (390, 250), (128, 64), (191, 127)])
def test_regions_across_the_edges_of_damage(x: int, y: int, files: tuple[Path, Path], image: RGB8) -> None:
    bad = of_damage(image)
    with open_slide(files[1], on_error="skip") as slide:
        pixels, known = slide.read_region((x, y), 0, (100, 90))
    wanted = np.full((90, 100, 3), 255, np.uint8)
    real = np.zeros((90, 100), np.bool_)
    for row in range(90):  # pixel by pixel: an oracle without slices
        for column in range(100):
            at = (y + row, x + column)
            if 0 <= at[0] < 300 and 0 <= at[1] < 420 and not bad[at]:
                wanted[row, column], real[row, column] = image[at], True
    np.testing.assert_array_equal(pixels, wanted)
    np.testing.assert_array_equal(np.ones_like(real) if known is None else known, real)


def test_filling_waits_for_the_colour_of_glass(files: tuple[Path, Path], image: RGB8) -> None:
    with open_slide(files[1], on_error="fill") as slide:
        assert isinstance(slide, ForgivingSlide)
        assert slide.read_region((128, 64), 0, (64, 64))[1] is not None
        slide.glass = np.array([236.4, 231.0, 228.6])
        pixels, known = slide.read_region((128, 64), 0, (64, 64))
        assert known is None
        assert (pixels == (236, 231, 229)).all()
        assert {place for _, place in slide.damage} == {(128, 64)}


def test_damage_of_smaller_levels_spoils_the_overview_alone(image: RGB8, tmp_path: Path, fitted: Macenko) -> None:
    path = tmp_path / "levels.tif"
    with tifffile.TiffWriter(path) as writer:
        options: dict[str, Any] = {"photometric": "rgb", "tile": (SIDE, SIDE), "compression": "lzw", "metadata": None}
        writer.write(image, **options)
        writer.write(image[::4, ::4].copy(), subfiletype=1, **options)
    with openslide.OpenSlide(str(path)) as opened:
        assert opened.level_count == 2
    damage(path, [(0, 1)], page=1)
    with open_slide(path) as slide, pytest.raises(SlideError, match=r"at \(256, 0\), level 1"):
        slide.thumbnail(105)
    with open_slide(path, on_error="skip") as slide:
        _, known = slide.thumbnail(105)
        assert known is not None
        assert not known[: SIDE - 1, SIDE + 1 :].any()
        assert known[:, : SIDE - 1].all()
        assert "1 of level 1 at (256, 0)" in slide.notes[-1]
    appearance = fitted.estimate(sample_slide(write(tmp_path / "whole.tif", image, compression="lzw")))
    _, counts, told = normalized(path, "skip", appearance=appearance)
    assert all(counts)
    assert told == ()  # level 0, which was all that was read, is whole


def test_many_damaged_tiles_are_one_line(image: RGB8, tmp_path: Path) -> None:
    path = write(tmp_path / "broken.tif", image, compression="lzw")
    damage(path, [(row, column) for row in range(1, 5) for column in range(7)])
    told = normalized(path, "skip")[2]
    assert len(told) == 1
    assert "28 of level 0 at (0, 64), (64, 64)" in told[0]
    assert told[0].endswith("and 18 more")


@pytest.mark.parametrize("on_error", ["skip", "fill"])
def test_a_slide_of_which_nothing_is_left_is_an_error(on_error: OnError, image: RGB8, tmp_path: Path) -> None:
    path = write(tmp_path / "broken.tif", image, compression="lzw")
    damage(path, [(row, column) for row in range(5) for column in range(7)])
    with pytest.raises(SlideError, match=r"nothing of broken\.tif could be read"):
        normalized(path, on_error)
    assert [found.name for found in tmp_path.iterdir()] == ["broken.tif"]


FORMATS = [
    ("slide.ome.zarr", "zstd"), ("slide.ome.zarr", "deflate"),
    ("slide.ome.tif", "jpeg"), ("slide.ome.tif", "jpeg2000"), ("slide.ome.tif", "webp"), ("slide.ome.tif", "deflate"),
    ("slide.ome.tif", "zstd"), ("slide.ome.tif", "jpegxl"),
    ("slide.tif", "jpeg"), ("slide.tif", "jpeg2000"), ("slide.tif", "deflate"), ("slide.tif", "zstd"),
    ("slide.dcm", "jpeg"), ("slide.dcm", "jpeg2000"),
]  # fmt: skip


def written(path: Path, compression: str, image: RGB8) -> Path:
    """A slide in one of restain's own formats, its tiles `BAD` overwritten but for their first 16 bytes."""
    pytest.importorskip("zarr" if path.suffix == ".zarr" else "pydicom" if path.suffix == ".dcm" else "tifffile")
    write_array(path, image, settings=PyramidSettings(tile=SIDE, compression=compression), mpp=(0.5, 0.5))
    whole = path.with_name("whole")
    whole.mkdir()
    (shutil.copytree if path.is_dir() else shutil.copy)(path, whole / path.name)
    if path.suffix == ".zarr":
        for row, column in BAD:
            overwrite(path / "0", row, column)
    elif path.suffix == ".dcm":
        damage_frames(path / "level-0.dcm", [row * 7 + column for row, column in BAD])
    else:
        damage(path, BAD)
    return whole / path.name


def damage_frames(path: Path, numbers: list[int]) -> None:
    """As `damage`, of the frames of a DICOM instance, by the table of their offsets."""
    from pydicom import dcmread

    data = dcmread(path, defer_size=1024)
    offsets = np.frombuffer(data.ExtendedOffsetTable, "<u8")
    lengths = np.frombuffer(data.ExtendedOffsetTableLengths, "<u8")
    content = bytearray(path.read_bytes())
    first = content.rindex(b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff") + 12 + 8  # behind the empty basic table
    for number in numbers:
        begin = first + int(offsets[number]) + 8
        content[begin + 16 : begin + int(lengths[number])] = bytes(int(lengths[number]) - 16)
    path.write_bytes(content)


@pytest.mark.parametrize(("name", "compression"), FORMATS)
def test_other_formats(name: str, compression: str, image: RGB8, tmp_path: Path, fitted: Macenko) -> None:
    path, bad = tmp_path / name, of_damage(image)
    whole = written(path, compression, image)
    with open_slide(whole) as slide:
        wanted, none = slide.read_region((0, 0), 0, slide.dimensions)
        assert none is None
        appearance = fitted.estimate(sample_slide(slide))
    shown = path.name if path.suffix != ".dcm" else "level-0.dcm"
    for x, y in PLACES:
        with open_slide(path) as slide:
            with pytest.raises(SlideError, match=rf"^{shown} is damaged in the tile at \({x}, {y}\) ") as caught:
                slide.read_region((x + 1, y + 1), 0, (8, 8))
            assert "\n" not in str(caught.value)
            np.testing.assert_array_equal(slide.read_region((64, 0), 0, (64, 64))[0], wanted[:64, 64:128])
    with open_slide(path, on_error="skip") as slide:
        pixels, known = slide.read_region((0, 0), 0, slide.dimensions)
        assert isinstance(slide, ForgivingSlide)
        assert {place for _, place in slide.damage} == PLACES
    assert known is not None
    np.testing.assert_array_equal(known, ~bad)
    np.testing.assert_array_equal(pixels[~bad], wanted[~bad])
    assert (pixels[bad] == 255).all()
    # From file to file.
    lossless = PyramidSettings(tile=SIDE, compression="none")
    with pytest.raises(SlideError, match=rf"{shown} is damaged in the tile at"):
        normalize_slide(path, tmp_path / "out.tif", fitted, appearance=appearance, settings=lossless)
    assert not (tmp_path / "out.tif").exists()
    expected = fitted.color_map(appearance, lazy=True)(wanted)
    for on_error in ("skip", "fill"):
        made, counts, told = normalized(path, on_error, appearance=appearance, settings=lossless)  # type: ignore[arg-type]
        np.testing.assert_array_equal(made[~bad], expected[~bad])
        assert "3 of level 0 at (128, 64), (0, 192), (384, 256)" in told[-1]
        missing = [divmod(number, 7) for number, count in enumerate(counts) if not count]
        assert missing == (BAD if on_error == "skip" else [])
    reference = fitted.reference_
    assert reference is not None
    assert np.abs(made[bad].astype(float) - reference.white_point).max() <= 1.5


def test_a_damaged_label_is_left_out(svs: Path, tmp_path: Path, fitted: Macenko) -> None:
    path = tmp_path / "broken.svs"
    path.write_bytes(svs.read_bytes())
    with tifffile.TiffFile(svs) as handle:
        (label,) = (page for page in handle.pages if "label" in page.description)
        offset, count = label.dataoffsets[0], label.databytecounts[0]
    with path.open("r+b") as stream:
        stream.seek(offset + 4)
        stream.write(b"\xff" * (count - 4))
    with pytest.raises(SlideError, match=r"the label image of broken\.svs is damaged"):
        normalize_slide(path, tmp_path / "out.tif", fitted, associated="keep")
    told = normalized(path, "skip", associated="keep")[2]
    assert len(told) == 1
    assert told[0].startswith("the label image was left out: ")
    with tifffile.TiffFile(tmp_path / "broken.skip.None.tif") as handle:
        assert [page.description for page in handle.pages if not page.is_tiled] == ["macro"]


def huge_label(kind: str, svs: Path, tmp_path: Path, fitted: Macenko) -> Path:
    """A slide of a few KB whose label claims 60,000 by 60,000 pixels: 14 GB as RGBA."""
    if kind == "Aperio":
        path = tmp_path / "bomb.svs"
        path.write_bytes(svs.read_bytes())
        with tifffile.TiffFile(path, mode="r+") as handle:
            (label,) = (page for page in handle.pages if "label" in page.description)
            for tag in ("ImageWidth", "ImageLength"):
                label.tags[tag].overwrite(60_000)
        return path
    pytest.importorskip("zarr")
    path = tmp_path / "bomb.ome.zarr"
    normalize_slide(svs, path, fitted, settings=SETTINGS, associated="keep")
    metadata = path / "associated" / "label" / "0" / "zarr.json"
    claims = json.loads(metadata.read_text())
    claims["shape"] = [3, 60_000, 60_000]
    metadata.write_text(json.dumps(claims))
    return path


@pytest.mark.parametrize("kind", ["Aperio", "OME-Zarr"])
def test_a_label_that_claims_a_huge_size(kind: str, svs: Path, tmp_path: Path, fitted: Macenko, forks: Forks) -> None:
    path = huge_label(kind, svs, tmp_path, fitted)
    with open_slide(path) as slide:
        assert set(slide.associated_images) >= {"label", "macro"}
        with pytest.raises(SlideError, match=rf"the label image of {path.name} claims 60000x60000 pixels; .* leave it"):
            slide.associated_images["label"]()
        assert slide.associated_images["macro"]().shape == (60, 100, 3)
    options = {"limits": {"more memory": 1 << 30}}  # to be sure that it was not even asked for
    ended = forks.run("normalize", path, tmp_path / "out.tif", "--associated", "keep", **options)
    assert ended.code == 2
    assert ended.err.startswith(f"restain: the label image of {path.name} claims 60000x60000 pixels; ")
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "out.tif").exists()
    skipped = forks.run(
        "normalize", path, tmp_path / "out.tif", "--associated", "keep", "--on-error", "skip", **options
    )
    assert skipped.code == 0, skipped.err
    assert "the label image was left out: " in skipped.err
    with tifffile.TiffFile(tmp_path / "out.tif") as handle:
        assert [page.description for page in handle.pages if not page.is_tiled] == ["macro"]
    assert forks.run("normalize", path, tmp_path / "dropped.tif", **options).code == 0


@pytest.mark.parametrize("on_error", ["skip", "fill"])
def test_a_slide_normalized_while_it_is_read(
    on_error: OnError, files: tuple[Path, Path], image: RGB8, fitted: Macenko
) -> None:
    appearance = fitted.estimate(sample_slide(files[0]))
    with NormalizedSlide(files[1], fitted, appearance=appearance) as slide, pytest.raises(SlideError):
        slide.read_region((0, 0), 0, slide.dimensions)
    with NormalizedSlide(files[0], fitted, appearance=appearance) as slide:
        wanted = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))
    with NormalizedSlide(files[1], fitted, appearance=appearance, on_error=on_error) as slide:
        found = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))
    bad = of_damage(image)
    np.testing.assert_array_equal(found[~bad], wanted[~bad])
    if on_error == "skip":
        assert not found[bad][:, 3].any()
    else:
        reference = fitted.reference_
        assert reference is not None
        assert np.abs(found[bad][:, :3] - reference.white_point).max() <= 1.5
        assert (found[bad][:, 3] == 255).all()
    with NormalizedSlide(files[1], fitted, on_error=on_error) as slide:  # estimates by itself
        assert slide.appearance.tissue_pixels > 0


# ---- the option -------------------------------------------------------------------------------------------------


def test_an_unknown_choice_is_an_input_error(pyramid: Path, fitted: Macenko, tmp_path: Path) -> None:
    choice: Any = "ignore"
    with pytest.raises(InputError, match="got on_error='ignore'; wanted stop, skip, fill"):
        open_slide(pyramid, on_error=choice)
    with pytest.raises(InputError, match="on_error"):
        normalize_slide(pyramid, tmp_path / "out.tif", fitted, on_error=choice)


@pytest.mark.parametrize("many", [False, True])
def test_the_option_of_the_command(many: bool, files: tuple[Path, Path], run: Run) -> None:
    folder = files[1].parent
    source, output = (folder, folder / "out") if many else (files[1], folder / "out.tif")
    stopped = run("normalize", source, output, "--tile-size", SIDE)
    assert stopped.code == (1 if many else 2)
    assert "broken.tif is damaged in the tile at (" in stopped.err
    skipped = run("normalize", source, output, "--tile-size", SIDE, "--on-error", "skip", *(["--overwrite"] * many))
    assert skipped.code == 0, skipped.err
    assert "left out (x, y in level-0 pixels): 3 of level 0 at (128, 64), (0, 192), (384, 256)" in skipped.err
    sheet = folder / f"sheet {many}.png"
    seen = run("normalize", files[1], folder / "seen.tif", "--on-error", "skip", "--preview", sheet)
    assert seen.code == 0, seen.err
    assert sheet.exists()
    again = run("normalize", files[1], folder / "filled.tif", "--on-error", "fill", "--json")
    assert "filled with glass" in again.json["results"][0]["warnings"][0]


COMMANDS: dict[str, list[str]] = {
    "target": ["normalize", "whole.tif", "out.tif", "--target", "broken.tif"],
    "target in a folder": ["normalize", "whole.tif", "out.tif", "--target", "folder"],
    "fit": ["fit", "broken.tif", "-o", "out.safetensors"],
    "compare": ["compare", "whole.tif", "broken.tif", "--methods", "reinhard"],
    "separate": ["separate", "broken.tif", "out", "--tile-size", "64"],
    "estimate": ["normalize", "folder", "out", "--estimate", "folder", "--tile-size", "64"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_option_reaches_every_slide_that_a_command_opens(
    command: str, image: RGB8, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "whole.tif", image, compression="lzw")
    damage(write(tmp_path / "broken.tif", image, compression="lzw"), BAD)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "broken.tif").symlink_to(tmp_path / "broken.tif")
    stopped = run(*COMMANDS[command])
    assert stopped.code == 2
    assert stopped.err.count("\n") == 1
    assert "broken.tif is damaged in the tile at (" in stopped.err
    skipped = run(*COMMANDS[command], "--on-error", "skip")
    assert skipped.code == 0, skipped.err
    assert skipped.err.count("3 of level 0 at (128, 64), (0, 192), (384, 256)") == 1


def test_exporting_tells_what_of_a_slide_was_not_seen(image: RGB8, run: Run, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    from ..systems.small import trained

    network, slide, output = tmp_path / "network.safetensors", tmp_path / "broken.tif", tmp_path / "network.onnx"
    trained("staingan").save(network)
    damage(write(slide, image, compression="lzw"), BAD)
    skipped = run("export", network, "-o", output, "--slide", slide, "--on-error", "skip")
    assert skipped.code == 0, skipped.err
    assert skipped.err.count("3 of level 0 at (128, 64), (0, 192), (384, 256)") == 1
    damage(slide, [(row, column) for row in range(5) for column in range(7)])
    nothing = run("export", network, "-o", output, "--slide", slide, "--on-error", "skip", "--overwrite")
    assert nothing.code == 2
    assert "nothing of broken.tif could be read" in nothing.err


def test_separation_leaves_damage_out_or_fills_it(image: RGB8, tmp_path: Path) -> None:
    path = write(tmp_path / "broken.tif", image, compression="lzw")
    damage(path, BAD)
    bad = of_damage(image)
    for on_error in ("skip", "fill"):
        settings = SeparationSettings(pyramid=SETTINGS, on_error=on_error)  # type: ignore[arg-type]
        result = separate_file(path, tmp_path / on_error, settings)
        assert "3 of level 0 at (128, 64), (0, 192), (384, 256)" in result.warnings[0]
        with open_slide(result.outputs["hematoxylin"]) as slide:
            pixels, known = slide.read_region((0, 0), 0, slide.dimensions)
        if on_error == "skip":
            assert known is not None
            np.testing.assert_array_equal(known, ~bad)
        else:
            assert known is None
            glass = np.array(result.facts["white_point"])
            assert np.abs(pixels[bad].astype(float) - glass).max() <= 2.5  # glass holds no stain


# ---- pieces -----------------------------------------------------------------------------------------------------


class Grid(Slide):
    """Sizes alone."""

    def __init__(self, size: tuple[int, int], downsample: float, tile: tuple[int, int] | None) -> None:
        super().__init__(Path("grid"), "grid")
        self.level_dimensions = (size,)
        self.level_downsamples = (downsample,)
        self.tile_sizes = (tile,)


@pytest.mark.parametrize("tile", [(64, 48), (7, 1000), None])
@pytest.mark.parametrize("downsample", [1.0, 4.0, 3.97])
def test_pieces_cover_what_is_inside_once(tile: tuple[int, int] | None, downsample: float) -> None:
    slide = Grid((300, 200), downsample, tile)
    generator = np.random.default_rng(0)
    for _ in range(30):
        x, y = (int(n) for n in generator.integers(-100, 400, 2) * downsample)
        width, height = (int(n) for n in generator.integers(1, 200, 2))
        count = np.zeros((height, width), int)
        for piece in pieces(slide, (x, y), 0, (width, height)):
            (left, top), (wide, high) = piece.offset, piece.size
            assert min(wide, high) > 0
            count[top : top + high, left : left + wide] += 1
            assert abs(piece.location[0] - (x + left * downsample)) <= 0.5
        assert count.max(initial=0) <= 1
        columns = np.arange(width) + x / downsample
        rows = np.arange(height) + y / downsample
        inside = ((rows >= 0) & (rows < 200))[:, None] & ((columns >= 0) & (columns < 300))
        np.testing.assert_array_equal(count == 1, inside)


WHOLE: Callable[[Slide], int] = lambda slide: len(list(pieces(slide, (0, 0), 0, slide.dimensions)))  # noqa: E731


def test_a_piece_for_each_tile() -> None:
    assert WHOLE(Grid((300, 200), 1.0, (64, 64))) == 5 * 4
    assert WHOLE(Grid((300, 200), 1.0, None)) == 2
