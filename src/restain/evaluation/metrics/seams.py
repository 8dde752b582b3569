"""Whether the borders of tiles show in a picture that was normalized in tiles."""

from typing import Any

import numpy as np

from restain.errors import InputError
from restain.evaluation.metrics.inputs import checked_image, checked_pair


def seam_score(reference: Any, image: Any, *, tile: int = 256, origin: tuple[int, int] = (0, 0)) -> float:
    """Seam ratio of the output over that of the source; lower is better, 1 means no seams were added.

    The ratio to the source is what counts: an untouched slide has scored 1.22, because the blocks of its JPEG end where
    its tiles do. Up to 1.05 is what restain promises.

    Args:
        reference: (H, W, 3) or (H, W) uint8, the source.
        image: the same shape, the output.
        tile: side of the tiles that the output was made in, pixels, 4 or more.
        origin: (x, y) of a corner of four tiles, pixels; (0, 0) where tiles start at the image's corner.

    Returns:
        The quotient; NaN where either image does not change beside the borders.

    Raises:
        InputError: an image or the tile is not what was wanted, or no border lies inside the image.
    """
    checked_pair(reference, image)
    source = seam_ratio(reference, tile=tile, origin=origin)
    return seam_ratio(image, tile=tile, origin=origin) / source if source else float("nan")


def seam_ratio(image: Any, *, tile: int = 256, origin: tuple[int, int] = (0, 0)) -> float:
    """Mean |Δ| of the two pixels on either side of tile borders, over mean |Δ| one pixel further inside.

    Channels and both directions are taken together. Arguments and errors as for `seam_score`.
    """
    if tile < 4:
        raise InputError(f"got tile={tile}; wanted a side of 4 pixels or more")
    pixels = checked_image(image)
    across, inside = [], []
    for lines, start in ((pixels, origin[1]), (pixels.swapaxes(0, 1), origin[0])):
        borders = np.arange(start % tile or tile, len(lines) - 1, tile)
        borders = borders[borders >= 2]  # the first pixel behind each border, with two before it and one after
        near = [lines[borders + offset].astype(np.int16) for offset in (-2, -1, 0, 1)]
        across.append(np.abs(near[2] - near[1]).ravel())
        inside += [np.abs(near[1] - near[0]).ravel(), np.abs(near[3] - near[2]).ravel()]
    if not sum(part.size for part in across):
        raise InputError(f"got an image of {pixels.shape[:2]} with no border of tiles of {tile} in it")
    expected = np.concatenate(inside).mean()
    return float(np.concatenate(across).mean() / expected) if expected else float("nan")
