"""Pictures from files: what is listed is where it says, and reads as the file's pixels."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from restain.color.images import RGB8
from restain.errors import SlideError
from restain.evaluation.datasets.pairs import Pair
from restain.phantom import Phantom, Scanner, make_phantom
from restain.slides.reader import open_slide
from restain.slides.writer import PyramidSettings, write_array
from restain.training.tiles import Picture, Shelf, TileSettings, list_file, list_pair, read_window

TILES = TileSettings(count=20, side=64, mpp=None, downsample=1.0, blank_share=None, seed=0)
WHITE = (240.0, 240.0, 240.0)


@pytest.fixture(scope="module")
def tissue() -> Phantom:
    return make_phantom(768, 1024, seed=5, glass_fraction=0.4, scanner=Scanner(noise=1.0))


@pytest.fixture(scope="module")
def slide(tissue: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pyramid of 0.25 micrometres a pixel."""
    path = tmp_path_factory.mktemp("slides") / "slide.tif"
    write_array(path, tissue.image, settings=PyramidSettings(tile=128, quality=95), mpp=(0.25, 0.25))
    return path


def whole(path: Path) -> RGB8:
    (picture,) = list_file(path, "name", "group", TILES, None).pictures[0]
    return Shelf().read(picture, 0, 0, *picture.size)


# ---- images -----------------------------------------------------------------------------------------------------


def test_an_image_is_one_picture(tmp_path: Path, tissue: Phantom) -> None:
    Image.fromarray(tissue.image[:70, :50]).save(tmp_path / "a.png")
    listed = list_file(tmp_path / "a.png", "a", "patient 1", TILES, WHITE)
    ((picture,),) = listed.pictures
    assert (picture.name, picture.group, picture.size, picture.plain) == ("a", "patient 1", (50, 70), True)
    assert picture.stained is not None
    assert picture.stained.shape == (9, 7)
    assert listed.pixels is not None
    assert (listed.pixels[0][0] == tissue.image[:70, :50]).all()
    assert (Shelf().read(picture, 7, 11, 20, 30) == tissue.image[11:41, 7:27]).all()


def test_gray_alpha_and_16_bits_become_rgb(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rgb = generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(rgb[..., 0]).save(tmp_path / "gray.png")
    assert (whole(tmp_path / "gray.png") == rgb[..., :1]).all()
    Image.fromarray(rgb[..., 0].astype(np.uint16) * 257).save(tmp_path / "gray16.png")
    assert (whole(tmp_path / "gray16.png") == rgb[..., :1]).all()
    tifffile.imwrite(tmp_path / "deep.tif", rgb.astype(np.uint16) * 257, photometric="rgb")
    assert (whole(tmp_path / "deep.tif") == rgb).all()
    alpha = np.zeros((40, 50, 1), np.uint8)
    alpha[:, 20:] = 255
    Image.fromarray(np.dstack([rgb, alpha])).save(tmp_path / "alpha.png")
    assert (whole(tmp_path / "alpha.png")[:, 20:] == rgb[:, 20:]).all()
    assert (whole(tmp_path / "alpha.png")[:, :20] == 255).all()


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_what_is_no_image_is_an_error_that_names_it(tmp_path: Path, tissue: Phantom, content: bytes | None) -> None:
    path = tmp_path / "broken.png"
    if content is None:  # cut short
        Image.fromarray(tissue.image).save(path)
        content = path.read_bytes()[:5000]
    path.write_bytes(content)
    with pytest.raises(SlideError, match=r"broken\.png"):
        list_file(path, "a", "a", TILES, None)


def test_an_image_that_breaks_later_is_an_error_that_names_it(tmp_path: Path, tissue: Phantom) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(tissue.image[:70, :50]).save(path)
    (picture,) = list_file(path, "a", "a", TILES, None).pictures[0]
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(SlideError, match=r"a\.png could be read before"):
        Shelf().read(picture, 0, 0, 50, 70)
    path.unlink()
    with pytest.raises(SlideError, match=r"a\.png could be read before"):
        Shelf().read(picture, 0, 0, 50, 70)


# ---- slides -----------------------------------------------------------------------------------------------------


def glass_share(tissue: Phantom, picture: Picture) -> float:
    (x, y), (w, h) = picture.location, (round(side * picture.downsample) for side in picture.size)
    return float(tissue.glass[y : y + h, x : x + w].mean())


def test_tiles_are_sampled_from_tissue(slide: Path, tissue: Phantom) -> None:
    pictures = [picture for (picture,) in list_file(slide, "s", "g", TILES, None).pictures]
    assert len(pictures) == TILES.count
    assert len({picture.location for picture in pictures}) == TILES.count
    shelf = Shelf()
    with open_slide(slide) as opened:
        for picture in pictures:
            x, y = picture.location
            assert x % 64 == y % 64 == 0
            assert x + 64 <= 1024 and y + 64 <= 768  # noqa: PT018
            assert glass_share(tissue, picture) < 1
            pixels = shelf.read(picture, 3, 5, 40, 30)
            assert (pixels == opened.read_region((x + 3, y + 5), 0, (40, 30))[0]).all()
    shelf.close()


def test_blank_tiles_are_glass(slide: Path, tissue: Phantom) -> None:
    settings = replace(TILES, blank_share=0.3)
    pictures = [picture for (picture,) in list_file(slide, "s", "g", settings, None).pictures]
    glass = [glass_share(tissue, picture) for picture in pictures]
    assert len(pictures) == 20
    assert sum(share > 0.99 for share in glass) == 6
    assert sum(share < 0.97 for share in glass) == 14
    assert all(picture.stained is not None for picture in pictures)


def test_pixels_come_along_where_there_is_room_for_them(slide: Path) -> None:
    room = 3 * TILES.side**2 * TILES.count
    listed = list_file(slide, "s", "g", replace(TILES, keep_bytes=room), None)
    assert listed.pixels is not None
    shelf = Shelf()
    for (picture,), (pixels,) in zip(listed.pictures, listed.pixels, strict=True):
        assert (shelf.read(picture, 0, 0, 64, 64) == pixels).all()
    shelf.close()
    assert list_file(slide, "s", "g", replace(TILES, keep_bytes=room - 1), None).pixels is None


def test_the_choice_of_tiles_depends_on_seed_and_name_alone(slide: Path, tmp_path: Path) -> None:
    def chosen(path: Path, name: str, seed: int) -> list[tuple[int, int]]:
        listed = list_file(path, name, "g", replace(TILES, count=10, seed=seed), None)
        return [picture.location for (picture,) in listed.pictures]

    copy = tmp_path / "elsewhere.tif"
    copy.write_bytes(slide.read_bytes())
    assert chosen(slide, "s", 0) == chosen(copy, "s", 0)
    assert chosen(slide, "s", 0) != chosen(slide, "s", 1)
    assert chosen(slide, "s", 0) != chosen(slide, "t", 0)


def test_slides_are_read_at_the_wanted_resolution(slide: Path, tissue: Phantom) -> None:
    """0.75 micrometres of 0.25 are 3×3 pixels; no level has these, so areas of a finer one are averaged."""
    listed = list_file(slide, "s", "g", replace(TILES, mpp=0.75, side=32), None)
    assert not listed.notes
    shelf = Shelf()
    for (picture,) in listed.pictures[:5]:
        assert picture.downsample == pytest.approx(3)
        (x, y), pixels = picture.location, shelf.read(picture, 0, 0, 32, 32)
        mean = tissue.image[y : y + 96, x : x + 96].reshape(32, 3, 32, 3, 3).mean(axis=(1, 3))
        assert np.abs(pixels - mean).mean() < 8  # of a level that was halved before, and JPEG
        assert np.corrcoef(pixels.ravel(), mean.ravel())[0, 1] > 0.97
    shelf.close()


def test_windows_average_areas_exactly(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "t.tif", pixels, tile=(32, 32), photometric="rgb", compression="lzw")
    with open_slide(tmp_path / "t.tif") as opened:
        window, known = read_window(opened, (8, 4), (20, 10), 4.0)
        assert known is None
        mean = pixels[4:44, 8:88].reshape(10, 4, 20, 4, 3).mean(axis=(1, 3))
        assert np.abs(window - mean).max() <= 1  # Pillow rounds twice, after rows and after columns
        same, _ = read_window(opened, (8, 4), (20, 10), 1.01)  # near enough to level 0
        assert (same == pixels[4:14, 8:28]).all()
        larger, _ = read_window(opened, (8, 4), (20, 10), 0.5)
        assert np.abs(larger.mean(axis=(0, 1)) - pixels[4:9, 8:18].mean(axis=(0, 1))).max() < 8
        _, outside = read_window(opened, (120, 4), (4, 4), 4.0)
        assert outside is not None
        assert outside.tolist() == [[True, True, False, False]] * 4


def test_what_a_slide_does_not_say_is_noted(tmp_path: Path, tissue: Phantom) -> None:
    write_array(tmp_path / "s.tif", tissue.image, settings=PyramidSettings(tile=128))
    listed = list_file(tmp_path / "s.tif", "s", "g", replace(TILES, mpp=0.5), None)
    assert "does not say its micrometres" in listed.notes[-1]
    assert listed.pictures[0][0].downsample == 1
    write_array(tmp_path / "coarse.tif", tissue.image, settings=PyramidSettings(tile=128), mpp=(1.0, 1.0))
    listed = list_file(tmp_path / "coarse.tif", "c", "g", replace(TILES, mpp=0.5), None)
    assert "enlarged" in listed.notes[-1]


def test_a_slide_smaller_than_a_tile_is_one_picture(slide: Path) -> None:
    ((picture,),) = list_file(slide, "s", "g", replace(TILES, side=2048), None).pictures
    assert picture.size == (1024, 768)


def test_a_slide_of_glass_is_an_error(tmp_path: Path) -> None:
    glass = np.random.default_rng(0).integers(238, 246, (512, 512, 3)).astype(np.uint8)
    write_array(tmp_path / "glass.tif", glass, settings=PyramidSettings(tile=128))
    with pytest.raises(SlideError, match=r"glass\.tif has no tile of 64 pixels with tissue"):
        list_file(tmp_path / "glass.tif", "g", "g", TILES, None)


# ---- pairs ------------------------------------------------------------------------------------------------------


def test_a_known_shift_is_cut_away(tmp_path: Path, tissue: Phantom) -> None:
    """What the source shows at (x, y) the target shows at (x, y) + shift."""
    scene = tissue.image
    Image.fromarray(scene[20:120, 30:130]).save(tmp_path / "s.png")
    Image.fromarray(255 - scene[25:145, 23:113]).save(tmp_path / "t.png")
    pair = Pair("p", tmp_path / "s.png", tmp_path / "t.png", shift=(7.2, -4.9))
    listed = list_pair(pair, "g", TILES, WHITE)
    ((source, target),) = listed.pictures
    assert source.size == target.size == (83, 95)
    assert source.location == (0, 5)
    assert target.location == (7, 0)
    shelf = Shelf()
    cut, twin = (shelf.read(picture, 0, 0, *picture.size) for picture in (source, target))
    assert (cut == 255 - twin).all()
    assert listed.pixels is not None
    assert (listed.pixels[0][0] == cut).all()
    assert (listed.pixels[0][1] == twin).all()


def test_pairs_that_do_not_match_are_errors(tmp_path: Path, tissue: Phantom) -> None:
    Image.fromarray(tissue.image[:60, :60]).save(tmp_path / "s.png")
    Image.fromarray(tissue.image[:60, :50]).save(tmp_path / "t.png")
    with pytest.raises(SlideError, match="60x60 and 50x60 pixels; register them"):
        list_pair(Pair("p", tmp_path / "s.png", tmp_path / "t.png"), "g", TILES, None)
    with pytest.raises(SlideError, match="do not overlap"):
        list_pair(Pair("p", tmp_path / "s.png", tmp_path / "t.png", shift=(50, 0)), "g", TILES, None)


def test_tiles_of_paired_slides_correspond(slide: Path, tissue: Phantom, tmp_path: Path) -> None:
    shifted = np.pad(255 - tissue.image, ((40, 0), (24, 0), (0, 0)), mode="reflect")[:768, :1024]
    write_array(tmp_path / "t.tif", shifted, settings=PyramidSettings(tile=128, quality=95), mpp=(0.25, 0.25))
    pictures = list_pair(Pair("p", slide, tmp_path / "t.tif", shift=(24, 40)), "g", TILES, None).pictures
    assert 5 < len(pictures) <= 20
    shelf = Shelf()
    for source, target in pictures:
        assert target.location == (source.location[0] + 24, source.location[1] + 40)
        first, second = (shelf.read(picture, 0, 0, 64, 64) for picture in (source, target))
        assert np.abs(first.astype(int) - (255 - second.astype(int))).mean() < 4  # JPEG twice
    Image.fromarray(tissue.image).save(tmp_path / "t.png")
    with pytest.raises(SlideError, match="one is a slide and the other an image"):
        list_pair(Pair("p", slide, tmp_path / "t.png"), "g", TILES, None)


# ---- reading ----------------------------------------------------------------------------------------------------


def test_only_the_last_slides_stay_open(slide: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.tif" for i in range(4)]
    for path in paths:
        path.write_bytes(slide.read_bytes())
    pictures = [Picture("s", path, "g", (0, 0), (64, 64), 1.0, plain=False) for path in paths]
    shelf = Shelf(most=2)
    for picture in [*pictures, pictures[2]]:
        shelf.read(picture, 0, 0, 8, 8)
    assert list(shelf._open) == [paths[3], paths[2]]
    shelf.close()
    assert not shelf._open


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_opens_slides_for_itself(slide: Path) -> None:
    picture = Picture("s", slide, "g", (0, 0), (64, 64), 1.0, plain=False)
    shelf = Shelf()
    shelf.read(picture, 0, 0, 8, 8)
    parents = shelf._open[slide]
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            shelf.read(picture, 0, 0, 8, 8)
            os.write(write, b"own" if shelf._open[slide] is not parents else b"parent's")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 100) == b"own"
    assert (shelf.read(picture, 0, 0, 8, 8) == Shelf().read(picture, 0, 0, 8, 8)).all()
    shelf.close()
