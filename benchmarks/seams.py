"""Whether normalizing a slide tile by tile shows: one estimate per slide against one per tile.

    python benchmarks/seams.py
    python benchmarks/seams.py --picture seams.png

The seam score is the mean absolute difference between the two pixels on either side of a tile border, over that
between neighbours one pixel further inside. The source has a score of its own, because the 8x8 blocks of its JPEG end
at the same borders; they also end in the middle of a tile, so "border over middle" is what the tiles alone add.
"""

import argparse
import warnings
from collections.abc import Iterator

import numpy as np
from common import Image, he_slide, print_goal, print_header, print_table, save_strips

import restain
from restain.errors import EstimateWarning

TILE = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", metavar="FILE", help="write source, one estimate, one per tile, side by side")
    picture = parser.parse_args().picture
    source, name = he_slide()
    print_header("Seams between tiles", f"{name} in tiles of {TILE}, to the profile he by Macenko")

    normalizer = restain.Macenko().fit("he")
    appearance = normalizer.estimate(source)
    whole = normalizer.color_map(appearance, lazy=True)(source)
    once, apart = np.empty_like(source), np.empty_like(source)
    color_map = normalizer.color_map(appearance, lazy=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for tile in tiles(source):
            once[tile] = color_map(source[tile])
            apart[tile] = normalizer.transform(source[tile])
    fallbacks = sum(issubclass(w.category, EstimateWarning) for w in caught)

    results = {"source": source, "one estimate per slide": once, "one estimate per tile": apart}
    scores = print_scores(results)
    print(f"Tiles without enough tissue for an estimate of their own: {fallbacks} of {len(list(tiles(source)))}")
    different = int((once != whole).any(axis=2).sum())
    print_goal("pixels that differ between tiles joined and the whole mapped at once", different, 0)
    print_goal("seam score, one estimate per slide, over the source's", scores["one estimate per slide"], 1.05)
    if picture:
        crop = darkest_tiles(source)
        save_strips(picture, [[(label, np.ascontiguousarray(pixels[crop])) for label, pixels in results.items()]])


def print_scores(results: dict[str, Image]) -> dict[str, float]:
    """Print the seams of each image, the source first; the scores over the source's."""
    borders = {label: border_differences(pixels) for label, pixels in results.items()}
    source = next(iter(borders.values()))
    rows, relative = [], {}
    for label, (across, inside) in borders.items():
        middle, _ = border_differences(results[label], TILE // 2)
        relative[label] = (across / inside) / (source[0] / source[1])
        scores = across / inside, relative[label], across / middle
        rows.append([label, f"{across:.2f}", f"{inside:.2f}", *(f"{score:.3f}" for score in scores)])
    print_table(["", "|Δ| across", "|Δ| inside", "seam score", "over source's", "border over middle"], rows)
    return relative


def tiles(image: Image) -> Iterator[tuple[slice, slice]]:
    """The tiles of an image, in reading order; those at the right and lower edge may be smaller."""
    for top in range(0, image.shape[0], TILE):
        for left in range(0, image.shape[1], TILE):
            yield slice(top, top + TILE), slice(left, left + TILE)


def border_differences(image: Image, offset: int = 0) -> tuple[float, float]:
    """Mean |Δ| of neighbouring pixels, grey levels: across tile borders, and one pixel inside on both sides.

    With an `offset`, in pixels, the same of lines that lie so far behind the borders.
    """
    across, inside = [], []
    for pixels in (image.astype(np.float32), image.astype(np.float32).swapaxes(0, 1)):
        step = np.abs(np.diff(pixels, axis=0))  # step[i] lies between rows i and i + 1
        borders = np.arange(TILE + offset, len(pixels) - 1, TILE)
        across.append(step[borders - 1].ravel())
        inside += [step[borders - 2].ravel(), step[borders].ravel()]
    return float(np.concatenate(across).mean()), float(np.concatenate(inside).mean())


def darkest_tiles(image: Image, across: int = 3) -> tuple[slice, slice]:
    """The square of `across` x `across` whole tiles with the most tissue."""
    rows, columns = (length // TILE for length in image.shape[:2])
    blocks = image[: rows * TILE, : columns * TILE].reshape(rows, TILE, columns, TILE, 3)
    level = blocks.mean(axis=(1, 3, 4))
    squares = np.lib.stride_tricks.sliding_window_view(level, (min(across, rows), min(across, columns)))
    row, column = np.unravel_index(squares.mean(axis=(2, 3)).argmin(), squares.shape[:2])
    return slice(row * TILE, (row + across) * TILE), slice(column * TILE, (column + across) * TILE)


if __name__ == "__main__":
    main()
