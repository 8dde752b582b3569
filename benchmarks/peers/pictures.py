"""The images that the packages are compared on: one target, a large tile, a folder of tiles, tiles of several labs."""

from collections.abc import Iterator

import numpy as np
from common import Image, data_folder, he_slide

TILE = 256

LABS = {"crc_val_he_7k/*/*": 16, "osteosarcoma/*/*": 6}
"""Most files of each folder, spread over it: H&E of which figures may be published (CC BY), of further laboratories."""


def target() -> tuple[Image, str]:
    """The image that every package is fitted to, and what it is."""
    folder = data_folder()
    path = folder / "classic" / "torchstain_target.png" if folder is not None else None
    if path is None or not path.exists():
        import restain

        return restain.make_phantom(512, 512, seed=7).image, "phantom tissue, 512x512"
    pixels = read(str(path))
    return pixels, f"{path.name} (torchstain's example target, {pixels.shape[1]}x{pixels.shape[0]})"


def read(path: str) -> Image:
    """An image file as (H, W, 3) uint8."""
    from PIL import Image as Pillow

    with Pillow.open(path) as file:
        return np.array(file.convert("RGB"))


def darkest_crop(image: Image, side: int, step: int = 64) -> Image:
    """The square with the most tissue."""
    side = min(side, *image.shape[:2])
    sums = np.pad(image.mean(axis=2).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    rows, columns = (range(0, length - side + 1, step) for length in image.shape[:2])
    levels = {
        (r, c): sums[r + side, c + side] - sums[r, c + side] - sums[r + side, c] + sums[r, c]
        for r in rows
        for c in columns
    }
    top, left = min(levels, key=levels.__getitem__)
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def tissue_tiles(image: Image, least: int = 64) -> list[Image]:
    """The `least` tiles of TILE pixels with the most tissue, in reading order; they overlap by half where needed."""
    for step in (TILE, TILE // 2):
        places = [
            (top, left)
            for top in range(0, image.shape[0] - TILE + 1, step)
            for left in range(0, image.shape[1] - TILE + 1, step)
        ]
        tissue = {(top, left): stained_share(image[top : top + TILE, left : left + TILE]) for top, left in places}
        enough = [place for place in places if tissue[place] > 0.25]
        if len(enough) >= least:
            break
    chosen = sorted(sorted(enough, key=lambda place: -tissue[place])[:least])
    return [np.ascontiguousarray(image[top : top + TILE, left : left + TILE]) for top, left in chosen]


def stained_share(image: Image) -> float:
    """Share of the pixels that are visibly stained: darker than 210 in green."""
    return float((image[..., 1] < 210).mean())


def lab_tiles() -> Iterator[tuple[str, Image]]:
    """Tiles of several labs with their names, the slide's among them."""
    slide, _ = he_slide()
    for index, tile in enumerate(tissue_tiles(slide, 8)):
        yield f"slide/{index}", tile
    yield "slide/1024", darkest_crop(slide, 1024)
    folder = data_folder()
    if folder is None:
        return
    for pattern, most in LABS.items():
        paths = [
            path for path in sorted(folder.glob(pattern)) if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".tif")
        ]
        for path in paths[:: max(len(paths) // most, 1)][:most]:
            yield f"{path.relative_to(folder)}", read(str(path))
