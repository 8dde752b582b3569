"""Shards: what the zarr package makes of them, which chunks are there, and what is left when they are damaged."""

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restain.color.images import RGB8
from restain.errors import SlideError
from restain.slides.codecs import EncodedTile, PyramidSettings, encode_tile
from restain.slides.levels import level_sizes
from restain.slides.reader import open_slide
from restain.slides.writer import write_array, write_pyramid
from restain.slides.zarr_chunks import Chunks
from restain.slides.zarr_reader import ZarrSlide
from restain.slides.zarr_shards import crc32c, read_index, shard_shape, write_shards

from .shards import overwrite, place_of

zarr = pytest.importorskip("zarr")

CODECS = ["zstd", "deflate", "none"]


def settings(tile: int, compression: str = "zstd") -> PyramidSettings:
    return PyramidSettings(tile=tile, compression=compression, format="ome-zarr")


@pytest.mark.parametrize("compression", CODECS)
@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 300), (300, 15), (301, 423)])
def test_two_readers_read_what_was_written(
    size: tuple[int, int], compression: str, tissue: RGB8, tmp_path: Path
) -> None:
    """Tiles of 16 in shards of 16 by 16 tiles: one shard that is not full, whole ones, and rests at all edges."""
    image = np.ascontiguousarray(tissue[: size[0], : size[1]])
    write_array(tmp_path / "s.ome.zarr", image, settings=settings(16, compression))
    group = zarr.open_group(tmp_path / "s.ome.zarr", mode="r")
    assert group["0"].chunks == (3, 16, 16)
    assert group["0"].shards == (3, 16 * min(16, -(-size[0] // 16)), 16 * min(16, -(-size[1] // 16)))
    np.testing.assert_array_equal(group["0"][:].transpose(1, 2, 0), image)
    with open_slide(tmp_path / "s.ome.zarr") as slide:
        assert isinstance(slide, ZarrSlide)
        assert all(chunks.decodable for chunks in slide._chunks)
        for level, dimensions in enumerate(slide.level_dimensions):
            pixels, known = slide.read_region((0, 0), level, dimensions)
            assert known is None
            np.testing.assert_array_equal(pixels, group[str(level)][:].transpose(1, 2, 0))


@pytest.mark.parametrize("location", [(0, 0), (-7, 250), (250, -7), (255, 255), (400, 290), (37, 41)])
def test_regions_across_shards(location: tuple[int, int], tissue: RGB8, tmp_path: Path) -> None:
    write_array(tmp_path / "s.ome.zarr", tissue, settings=settings(16))
    with open_slide(tmp_path / "s.ome.zarr") as slide:
        pixels, known = slide.read_region(location, 0, (90, 70))
    wanted = np.full((70, 90, 3), 255, np.uint8)
    real = np.zeros((70, 90), np.bool_)
    for row, column in itertools.product(range(70), range(90)):  # pixel by pixel: an oracle without slices
        y, x = location[1] + row, location[0] + column
        if 0 <= y < tissue.shape[0] and 0 <= x < tissue.shape[1]:
            wanted[row, column], real[row, column] = tissue[y, x], True
    np.testing.assert_array_equal(pixels, wanted)
    np.testing.assert_array_equal(np.ones_like(real) if known is None else known, real)


def with_holes(image: RGB8, holes: set[tuple[int, int]], tile: int) -> Iterator[EncodedTile]:
    for row, column in itertools.product(range(-(-image.shape[0] // tile)), range(-(-image.shape[1] // tile))):
        y, x = row * tile, column * tile
        yield encode_tile(None if (row, column) in holes else image[y : y + tile, x : x + tile], settings(tile))


def test_chunks_that_are_missing_within_shards_are_padding(tissue: RGB8, tmp_path: Path) -> None:
    """And a shard of which nothing is there is no file. So they are for the zarr package: white."""
    image = np.ascontiguousarray(tissue[:300, :300])
    holes = {(2, 3), (17, 5)} | set(itertools.product(range(16), range(16, 19)))  # the last: a whole shard
    bare: dict[str, Any] = {"mpp": None, "icc_profile": None, "description": "", "software": "", "associated": {}}
    path = tmp_path / "s.ome.zarr"
    write_pyramid(path, (300, 300), with_holes(image, holes, 16), settings=settings(16), pool=None, **bare)
    hole = np.zeros((300, 300), np.bool_)
    for row, column in holes:
        hole[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = True
    files = sorted(file.relative_to(path / "0" / "c" / "0").as_posix() for file in (path / "0" / "c").rglob("*/*/*"))
    assert files == ["0/0", "1/0", "1/1"]
    with open_slide(path) as slide:
        pixels, known = slide.read_region((0, 0), 0, (300, 300))
        assert known is not None
        np.testing.assert_array_equal(~known, hole)
        np.testing.assert_array_equal(pixels[~hole], image[~hole])
        assert (pixels[hole] == 255).all()
    np.testing.assert_array_equal(zarr.open_group(path, mode="r")["0"][:].transpose(1, 2, 0), pixels)


SHARDS = {"chunks": (3, 32, 32), "shards": (3, 128, 64)}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(SHARDS, id="zstd"),
        pytest.param(SHARDS | {"chunks": (1, 32, 32)}, id="a chunk for each channel"),
        pytest.param(SHARDS | {"compressors": None}, id="uncompressed"),
        pytest.param(SHARDS | {"compressors": [zarr.codecs.BloscCodec()]}, id="blosc"),
        pytest.param({"chunks": (3, 32, 32)}, id="no shards"),
        pytest.param(SHARDS | {"serializer": "start"}, id="index at the start"),
        pytest.param(SHARDS | {"serializer": "unchecked"}, id="index without checksum"),
        pytest.param(SHARDS | {"serializer": "big endian"}, id="big endian"),
    ],
)
def test_shards_of_other_writers(options: dict[str, Any], tissue: RGB8, tmp_path: Path) -> None:
    """Also with the index at the beginning, without a checksum, or in another order of bytes. The zarr package leaves
    out chunks that hold nothing but the fill value."""
    image = tissue.copy()
    image[32:64, 64:96] = 255
    root = zarr.open_group(tmp_path / "s.zarr", mode="w", zarr_format=3)
    kind = options.get("serializer")
    if kind is not None:
        codec = zarr.codecs
        index = [codec.BytesCodec(endian="big" if kind == "big endian" else "little"), codec.Crc32cCodec()]
        sharding = codec.ShardingCodec(
            chunk_shape=options["chunks"],
            codecs=[codec.BytesCodec(), codec.ZstdCodec()],
            index_codecs=index[:1] if kind == "unchecked" else index,
            index_location="start" if kind == "start" else "end",
        )
        options = {"chunks": options["shards"], "serializer": sharding, "compressors": None}
    array = root.create_array("0", shape=(3, *image.shape[:2]), dtype="uint8", fill_value=255, **options)
    array[:] = image.transpose(2, 0, 1)
    axes = [{"name": "c", "type": "channel"}, *({"name": name, "type": "space"} for name in "yx")]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]}]
    root.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    with open_slide(tmp_path / "s.zarr") as slide:
        pixels, known = slide.read_region((0, 0), 0, slide.dimensions)
    np.testing.assert_array_equal(pixels, image)
    if kind == "big endian":  # an index that is not known here: the whole shard counts
        assert known is None
    else:
        assert known is not None
        hole = np.zeros(image.shape[:2], np.bool_)
        hole[32:64, 64:96] = True
        np.testing.assert_array_equal(~known, hole)


# ---- damage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", CODECS)
def test_a_damaged_chunk_costs_no_other(compression: str, tissue: RGB8, tmp_path: Path) -> None:
    path = tmp_path / "s.ome.zarr"
    write_array(path, tissue, settings=settings(16, compression))
    overwrite(path / "0", 3, 5)
    with open_slide(path) as slide:
        if compression == "none":  # nothing can tell
            assert (slide.read_region((80, 48), 0, (16, 16))[0][1:, :, 1] == 0).all()
            return
        with pytest.raises(
            SlideError, match=r"s\.ome\.zarr is damaged in the tile at \(80, 48\) \(x, y in level-0 pix"
        ):
            slide.read_region((70, 40), 0, (40, 40))
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, (80, 301))[0], tissue[:, :80])
    with open_slide(path, on_error="skip") as slide:
        pixels, known = slide.read_region((0, 0), 0, slide.dimensions)
    hole = np.zeros(tissue.shape[:2], np.bool_)
    hole[48:64, 80:96] = True
    assert known is not None
    np.testing.assert_array_equal(~known, hole)
    np.testing.assert_array_equal(pixels[~hole], tissue[~hole])


@pytest.mark.parametrize("kind", ["cut off", "index changed", "index gone", "offsets beyond the end", "empty"])
def test_a_damaged_index_costs_its_shard_alone(kind: str, tissue: RGB8, tmp_path: Path) -> None:
    path = tmp_path / "s.ome.zarr"
    write_array(path, tissue, settings=settings(16))
    shard = path / "0" / "c" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    if kind == "cut off":
        del data[len(data) // 2 :]
    elif kind == "index changed":
        data[-100] ^= 1
    elif kind == "index gone":
        del data[-4100:]
    elif kind == "empty":
        data.clear()
    else:
        index = np.frombuffer(bytes(data[-4100:-4]), "<u8").copy()
        index[::2] += 1 << 40
        data[-4100:] = index.tobytes() + crc32c(index.tobytes()).to_bytes(4, "little")
    shard.write_bytes(data)
    with open_slide(path) as slide:
        with pytest.raises(
            SlideError, match=r"s\.ome\.zarr is damaged in the tile at \(0, 0\) .*its shard|of its shard"
        ):
            slide.read_region((0, 0), 0, (16, 16))
        np.testing.assert_array_equal(slide.read_region((256, 0), 0, (167, 301))[0], tissue[:, 256:])
        np.testing.assert_array_equal(slide.read_region((0, 256), 0, (423, 45))[0], tissue[256:])
    with open_slide(path, on_error="skip") as slide:
        _, known = slide.read_region((0, 0), 0, slide.dimensions)
    assert known is not None
    assert not known[:256, :256].any()
    assert known[256:].all()
    assert known[:, 256:].all()


def test_a_chunk_that_claims_to_be_huge_takes_no_memory(tissue: RGB8, tmp_path: Path) -> None:
    """A zstd frame of a few bytes that unpacks to 4 GB."""
    imagecodecs = pytest.importorskip("imagecodecs")
    path = tmp_path / "s.ome.zarr"
    write_array(path, tissue[:64, :64], settings=settings(64))
    found = place_of(path / "0", 0, 0)
    assert found is not None
    shard, offset, length = found
    bomb = imagecodecs.zstd_encode(bytes(1 << 27), level=3)
    assert len(bomb) < length
    data = shard.read_bytes()
    index = np.array([0, len(bomb)], "<u8").tobytes()
    shard.write_bytes(bomb + index + crc32c(index).to_bytes(4, "little"))
    assert offset == 0
    assert len(data) > len(bomb)
    with open_slide(path) as slide, pytest.raises(SlideError, match=r"is damaged in the tile at \(0, 0\)"):
        slide.read_region((0, 0), 0, (64, 64))


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), MemoryError()])
def test_trouble_of_the_machine_is_no_damage(
    error: Exception, tissue: RGB8, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not make padding of tissue."""
    path = tmp_path / "s.ome.zarr"
    write_array(path, tissue[:64, :64], settings=settings(64))

    def fail(*_: Any) -> None:
        raise error

    with open_slide(path, on_error="skip") as slide:
        monkeypatch.setattr(Chunks, "_bytes_of", fail)
        with pytest.raises(type(error)):
            slide.read_region((0, 0), 0, (64, 64))


@pytest.mark.parametrize("sharded", [True, False])
def test_a_chunk_of_more_bytes_than_its_pixels_can_take_is_not_read(
    sharded: bool, tissue: RGB8, tmp_path: Path
) -> None:
    """A terabyte that takes no room on the disk."""
    path = tmp_path / "s.ome.zarr"
    write_array(path, tissue[:64, :64], settings=settings(64))
    huge = 1 << 40
    chunk = path / "0" / "c" / "0" / "0" / "0"
    index = np.array([0, huge], "<u8").tobytes()
    with chunk.open("wb") as stream:
        stream.truncate(huge)
        stream.seek(huge)
        stream.write(index + crc32c(index).to_bytes(4, "little"))
    if not sharded:
        metadata = json.loads((path / "0" / "zarr.json").read_text())
        metadata["codecs"] = metadata["codecs"][0]["configuration"]["codecs"]
        (path / "0" / "zarr.json").write_text(json.dumps(metadata))
    with open_slide(path) as slide, pytest.raises(SlideError, match=r"damaged in the tile at \(0, 0\) .*cannot take"):
        slide.read_region((0, 0), 0, (64, 64))


def test_shards_with_an_index_that_is_too_large(tissue: RGB8, tmp_path: Path) -> None:
    path = tmp_path / "s.ome.zarr"
    write_array(path, tissue, settings=settings(16))
    metadata = json.loads((path / "0" / "zarr.json").read_text())
    metadata["shape"] = [3, 100_000, 100_000]
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = [3, 32_768, 32_768]
    (path / "0" / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(SlideError, match=r"claims shards of \(3, 32768, 32768\) for chunks of \(3, 16, 16\)"):
        open_slide(path)


# ---- the writer -------------------------------------------------------------------------------------------------


@given(
    columns=st.integers(1, 9),
    count=st.integers(0, 60),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    data=st.data(),
)
def test_every_chunk_is_found_again(
    columns: int, count: int, shape: tuple[int, int], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = -(-count // columns)
    chunks = data.draw(st.lists(st.binary(max_size=3), min_size=rows * columns, max_size=rows * columns))
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, columns, shape, iter(chunks))
    tall, wide = shape
    files = set()
    for number, chunk in enumerate(chunks):
        row, column = divmod(number, columns)
        path = folder / str(row // tall) / str(column // wide)
        index = read_index(path, tall * wide, at_end=True, checked=True)
        assert index is not None
        offset, length = (int(n) for n in index[row % tall * wide + column % wide])
        if chunk:
            files.add(path)
            assert path.read_bytes()[offset : offset + length] == chunk
        else:
            assert offset == length == 2**64 - 1
    assert {path for path in folder.rglob("*") if path.is_file()} == files
    for path in files:  # nothing but chunks, the index and its checksum
        index = read_index(path, tall * wide, at_end=True, checked=True)
        assert index is not None
        held = int(index[index[:, 0] != 2**64 - 1, 1].sum())
        assert path.stat().st_size == held + 16 * tall * wide + 4


def test_memory_is_a_row_of_a_shard(tmp_path: Path) -> None:
    """Chunks are asked for only when there is room for them: never more than one row of one shard ahead of the disk."""
    written, ahead = 0, []

    def chunks() -> Iterator[bytes]:
        nonlocal written
        for number in range(13 * 9):
            written = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
            ahead.append(1000 * number - written)
            yield bytes(1000)

    write_shards(tmp_path, 13, (4, 4), chunks())
    assert max(ahead) <= 4 * 1000


def test_the_number_of_files(tmp_path: Path) -> None:
    """What the page on formats says of a large slide."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    for tile, tiles_then in ((512, "51,000"), (256, "204,000")):
        shards = tiles = levels = 0
        for width, height in level_sizes((100_000, 100_000), tile):
            grid = (-(-height // tile), -(-width // tile))
            tall, wide = shard_shape(grid, tile)
            shards += -(-grid[0] // tall) * -(-grid[1] // wide)
            tiles += math.prod(grid)
            levels += 1
        files = shards + levels + 1
        assert f"{round(files, -1):,} files" in page, f"{tile}: {files} files"
        assert f"{round(tiles, -3):,}" == tiles_then
        assert tiles_then in page


@pytest.mark.parametrize("data", [b"", b"123456789", bytes(4096), bytes(range(256)) * 3])
def test_checksums(data: bytes) -> None:
    google = pytest.importorskip("google_crc32c")
    assert crc32c(data) == google.value(data)


def test_the_published_checksum() -> None:
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
