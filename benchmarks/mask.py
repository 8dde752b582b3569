"""What CHEN's mask of red keeps that gray loses: red and blue cytoplasm of one brightness.

    python benchmarks/mask.py
    python benchmarks/mask.py --picture mask.png

A network that is given gray must guess colours. Here the guess is the best that a pixel by itself allows, without a
network: the mean colour of all pixels of its gray level, or of its gray level and its value in the mask (CHEN's red is
greatest). The means are of the stained pixels of every second picture, the errors of those of the others. Printed is
the root mean square error, and the share of its square that is left; on cells stained by Papanicolaou, and on H&E,
where the mask is nearly constant. Glass is shown as it is.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from common import Image, data_folder, print_header, print_table, save_strips
from numpy.typing import NDArray

import restain
from restain.color.glass import find_white_point
from restain.systems.chen import remove_stain

FOLDERS = {"Papanicolaou": "cric_cells", "H&E": "crc_val_he_7k"}
STAINED = 0.15
"""Optical density, against the white point, from which on a pixel is judged."""
SHOWN = 200
"""Side of the pictures."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", help="write a field as it is, and as each guess colours it")
    options = parser.parse_args()
    data = data_folder()
    if data is None:
        print("no data: set RESTAIN_DATA")
        return
    print_header(
        "What the mask of red keeps", "CRIC cells and CRC-VAL-HE-7K (both CC BY 4.0), every second file to learn"
    )
    rows, strips = [], []
    for stain, folder in FOLDERS.items():
        files = sorted(path for path in (data / folder).rglob("*") if path.suffix in (".jpg", ".png", ".tif"))
        learned, judged = ([read(path) for path in files[start::2]] for start in (0, 1))
        guesses = {"gray": Guess(learned, masked=False), "gray and mask": Guess(learned, masked=True)}
        for name, guess in guesses.items():
            error, left = guess.judge(judged, guesses["gray"])
            rows.append([stain, name, f"{error:.2f}", f"{left:.0%}", f"{red_share(judged):.0%}"])
        # The picture with most stained pixels of either kind.
        both = [min((stained(image) & red(image)).sum(), (stained(image) & ~red(image)).sum()) for image in judged]
        shown = judged[int(np.argmax(both))]
        strip = [(f"{stain}, as it is", shown), *((f"from {name}", guess(shown)) for name, guess in guesses.items())]
        times = max(SHOWN // min(shown.shape[:2]), 1)
        strips.append([(label, image.repeat(times, 0).repeat(times, 1)[:SHOWN, :SHOWN]) for label, image in strip])
    print_table(["stain", "known of a pixel", "error, levels", "of the square", "red"], rows)
    if options.picture:
        save_strips(options.picture, strips)


class Guess:
    """The mean colour of what is known of a pixel."""

    def __init__(self, images: Sequence[Image], *, masked: bool) -> None:
        self.masked = masked
        where = [stained(image).ravel() for image in images]
        colors = np.concatenate([image.reshape(-1, 3)[inside] for image, inside in zip(images, where, strict=True)])
        keys = np.concatenate([self.keys(image)[inside] for image, inside in zip(images, where, strict=True)])
        counts = np.bincount(keys, minlength=512)
        sums = np.stack([np.bincount(keys, colors[:, channel], minlength=512) for channel in range(3)], axis=1)
        known = np.flatnonzero(counts)
        self.means = np.stack(
            [np.interp(np.arange(512), known, sums[known, channel] / counts[known]) for channel in range(3)], axis=1
        )

    def __call__(self, image: Image) -> Image:
        """The image in the colours guessed."""
        guessed = np.rint(self.means[self.keys(image)]).astype(np.uint8).reshape(image.shape)
        return np.where(stained(image)[..., None], guessed, image)

    def judge(self, images: Sequence[Image], gray: "Guess") -> tuple[float, float]:
        """Root mean square error over stained pixels in levels; its square as a share of what `gray` leaves."""
        errors = [self._squares(image) for image in images]
        reference = [gray._squares(image) for image in images]
        own, other = np.concatenate(errors).mean(), np.concatenate(reference).mean()
        return float(np.sqrt(own)), float(own / other)

    def keys(self, image: Image) -> NDArray[np.int64]:
        """What is known of each pixel: 0..255 for gray, 256 more where it is masked."""
        levels = np.rint(gray_of(image)).astype(np.int64).ravel()
        return levels + 256 * red(image).ravel() if self.masked else levels

    def _squares(self, image: Image) -> NDArray[np.float64]:
        error = (self.means[self.keys(image)] - image.reshape(-1, 3)) ** 2
        return error.mean(axis=1)[stained(image).ravel()]


def seen(image: Image) -> torch.Tensor:
    """What CHEN's generator is given: (2, H, W), gray in −1..1 and the mask."""
    return remove_stain(torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255)[0]


def gray_of(image: Image) -> NDArray[np.float64]:
    """Gray, 0..255."""
    return (seen(image)[0].double().numpy() + 1) * 127.5


def red(image: Image) -> NDArray[np.bool_]:
    """The mask (H, W)."""
    return seen(image)[1].numpy() > 0.5


def stained(image: Image) -> NDArray[np.bool_]:
    """Which pixels (H, W) are stained."""
    white = find_white_point(restain.ColorHistogram.from_image(image)).level
    return np.asarray((-np.log((image + 1.0) / (white + 1))).mean(axis=-1) > STAINED)


def red_share(images: Sequence[Image]) -> float:
    """Share of the stained pixels that is masked."""
    return float(np.concatenate([red(image)[stained(image)] for image in images]).mean())


def read(path: Path) -> Image:
    """An image file as (H, W, 3) uint8."""
    with restain.open_slide(path) as slide:
        return slide.read_region((0, 0), 0, slide.dimensions)[0]


if __name__ == "__main__":
    main()
