"""The same tissue by two scanners, as files: small, with planted differences, for the tests of evaluation."""

from pathlib import Path

import numpy as np
from PIL import Image

from restain.evaluation.datasets.pairs import Pair, pair_folders
from restain.phantom import STAINS_A, STAINS_B, Scanner, make_phantom, render

PINKISH = (236.0, 231.0, 228.0)
SIZE = (128, 144)


def write_pairs(folder: Path, number: int = 3) -> list[Pair]:
    """`a/i.png` and `b/i.png`: tissue i without blood, stained and scanned twice; the second is shifted a little."""
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
    for index in range(number):
        phantom = make_phantom(SIZE[0] + 8, SIZE[1] + 8, seed=50 + index, stain_matrix=STAINS_A)
        scans = {
            "a": (STAINS_A, Scanner(noise=1.0), 4, 4),
            "b": (STAINS_B, Scanner(white=PINKISH, noise=1.0), 2, 5),
        }
        for name, (stains, scanner, top, left) in scans.items():
            image = render(phantom.concentrations, np.zeros_like(phantom.rbc), stains, scanner, seed=index)
            crop = np.ascontiguousarray(image[top : top + SIZE[0], left : left + SIZE[1]])
            Image.fromarray(crop).save(folder / name / f"{index}.png")
    return pair_folders(folder / "a", folder / "b")[0]
