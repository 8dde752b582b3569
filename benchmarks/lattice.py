"""A lattice fitted to what a normalizer made of one part of a slide, against the same normalizer on the other part.

    python benchmarks/lattice.py [--sizes 17,33,65]

Every teacher but the last is a map of colours, measured once, on the whole slide. The last sharpens what `macenko`
gives (unsharp mask), as a network might: what it makes of a pixel depends on its neighbours. Peak signal-to-noise
ratios are of the lattice, not rounded, against the teacher, over all pixels; `best` is what no map of colours can
exceed on the test part, and only one that was fitted to it could reach. Times are the processor's, of gathering the
pairs of both parts, the teacher's work included, and of the fit to one of them.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from common import Image, he_slide, print_header, print_table
from scipy.ndimage import gaussian_filter

import restain
from restain.color.regression import PairedColors, assess_lattice, fit_lattice

TEACHERS = ("reinhard", "macenko", "vahadane", "khan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="17,33,65")
    sizes = [int(size) for size in parser.parse_args().sizes.split(",")]
    slide, name = he_slide()
    phantoms = [
        restain.make_phantom(1024, 1024, seed=seed, scanner=restain.Scanner(noise=2.0)).image for seed in (1, 2)
    ]
    middle = slide.shape[1] // 2
    pictures = {"slide": (slide[:, :middle], slide[:, middle:]), "phantoms": tuple(phantoms)}
    print_header("Lattices fitted to normalizers", f"{name}, left half and right half; two phantoms, 1024x1024")
    rows = []
    for picture, (fitting, test) in pictures.items():
        for teacher, function in teachers(restain.ColorHistogram.from_images([fitting, test])).items():
            start = time.process_time()
            pairs, others = (PairedColors.from_images(image, function(image)) for image in (fitting, test))
            gathered = time.process_time() - start
            for size in sizes:
                start = time.process_time()
                fitted = fit_lattice(pairs, size=size)
                seconds = time.process_time() - start
                outcome = assess_lattice(fitted.levels, others)
                quality = [f"{fitted.psnr:.1f}", f"{outcome.psnr:.1f}", f"{outcome.best_psnr:.1f}"]
                counts = [f"{fitted.colors:,}", f"{outcome.unexplained:.1%}"]
                rows.append([picture, teacher, str(size), *counts, *quality, f"{gathered:.1f} s", f"{seconds:.1f} s"])
    columns = ["picture", "teacher", "size", "colours", "unexplained", "fitted, dB", "test, dB", "best, dB"]
    print_table([*columns, "gathering", "fit"], rows)


def teachers(histogram: restain.ColorHistogram) -> dict[str, Callable[[Image], Image]]:
    """Normalizers to the profile "he" as functions of images."""
    maps: dict[str, Callable[[Image], Image]] = {}
    for name in TEACHERS:
        normalizer = restain.METHODS[name]().fit("he")
        maps[name] = normalizer.color_map(normalizer.estimate(histogram), lazy=True)
    return maps | {"macenko, sharpened": lambda image: sharpened(maps["macenko"](image))}


def sharpened(image: Image) -> Image:
    """An unsharp mask: half of the distance from a blurred picture (sigma of 2 pixels) is added."""
    levels = image.astype(np.float32)
    return np.clip(np.rint(levels + 0.5 * (levels - gaussian_filter(levels, (2, 2, 0)))), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
