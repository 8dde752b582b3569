"""How fast a `ColorMap` maps pixels, beside NumPy, a memory copy and StainNet's convolutions; and what a table costs.

    python benchmarks/kernel.py

All contenders of a table are timed in turn, round by round; a ratio is the median over rounds of the quotient within
a round. The image is a real slide, because a table's speed depends on how often colours come back.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from common import CORES, Image, Timings, he_slide, interleaved, print_goal, print_header, print_table

import restain

SIDE = 4096
ROUNDS = 7


def main() -> None:
    slide, name = he_slide()
    repeats = [-(-SIDE // length) for length in slide.shape[:2]]
    image = np.ascontiguousarray(np.tile(slide, (*repeats, 1))[:SIDE, :SIDE])
    print_header("Colour maps at work", f"{name} repeated to {SIDE}x{SIDE}; {distinct(image):,} colours")
    normalizer = restain.Macenko().fit("he")
    color_map = normalizer.color_map(normalizer.estimate(image))

    apply(color_map, image)
    convolve(color_map, image[:1024, :1024])
    tabulate(slide)


def apply(color_map: restain.ColorMap, image: Image) -> None:
    """The map, against what NumPy does with the same table and against copying the pixels."""
    table = color_map.table
    codes_table = (table.reshape(-1, 3) @ np.array([1 << 16, 1 << 8, 1])).astype(np.uint32)
    out, work = np.empty_like(image), image.copy()
    halves = [slice(0, SIDE // 2), slice(SIDE // 2, SIDE)]

    def packed_take() -> Image:
        """The best that we know in NumPy: one index a pixel, then take the packed result apart."""
        wide = image.astype(np.uint32)
        codes = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
        mapped = codes_table.take(codes).astype("<u4", copy=False)
        return mapped.view(np.uint8).reshape(*codes.shape, 4)[..., 2::-1].copy()

    expected = table[image[..., 0], image[..., 1], image[..., 2]]
    assert np.array_equal(color_map(image), expected)
    assert np.array_equal(packed_take(), expected)

    with ThreadPoolExecutor(2) as pool:
        times = interleaved(
            {
                "ColorMap, 1 thread": lambda: color_map(image, out=out),
                "ColorMap, 2 threads": lambda: list(pool.map(lambda h: color_map(image[h], out=out[h]), halves)),
                "ColorMap in place, 1 thread": lambda: color_map(work, out=work),
                "ColorMap in place, 2 threads": lambda: list(
                    pool.map(lambda h: color_map(work[h], out=work[h]), halves)
                ),
                "NumPy table[r, g, b]": lambda: table[image[..., 0], image[..., 1], image[..., 2]],
                "NumPy take of packed codes": packed_take,
                "memory copy (np.copyto)": lambda: np.copyto(out, image),
            },
            ROUNDS,
            before=lambda: np.copyto(work, image),
        )
    one = "ColorMap, 1 thread"
    print_speeds(times, image.shape[0] * image.shape[1] / 1e6, one)
    print_goal(
        "ColorMap over NumPy's table[r, g, b], 1 thread",
        times.ratio("NumPy table[r, g, b]", one),
        8,
        least=True,
        unit="x",
    )
    share = 1 / times.ratio(one, "memory copy (np.copyto)")
    print(f"        of the speed of a memory copy: {share:.0%} with 1 thread, ", end="")
    print(f"{1 / times.ratio('ColorMap, 2 threads', 'memory copy (np.copyto)'):.0%} with 2\n")


def convolve(color_map: restain.ColorMap, crop: Image) -> None:
    """StainNet is 1x1 convolutions: a pixelwise function, run as a network or as the table it is."""
    try:
        import torch
    except ImportError:
        print("torch is not installed: no comparison with StainNet's convolutions\n")
        return
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(32, 32, 1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(32, 3, 1),
    )
    tensor = torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    out = np.empty_like(crop)

    def network(threads: int) -> None:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            layers(tensor)

    times = interleaved(
        {
            "ColorMap, 1 thread": lambda: color_map(crop, out=out),
            "StainNet's layers in torch, 1 thread": lambda: network(1),
            f"StainNet's layers in torch, {CORES} threads": lambda: network(CORES),
        },
        ROUNDS,
    )
    print(f"A {crop.shape[1]}x{crop.shape[0]} crop; torch without converting to and from uint8")
    print_speeds(times, crop.shape[0] * crop.shape[1] / 1e6, "ColorMap, 1 thread")


def tabulate(slide: Image) -> None:
    """What it costs to have a table: all colours, or lazily those of a tile, the tile's mapping included."""
    small, large = centre(slide, 256), centre(slide, 2048)
    jobs: dict[str, Callable[[], Any]] = {}
    for method in (restain.Macenko, restain.Reinhard):
        normalizer = method().fit("he")
        maker = partial(normalizer.color_map, normalizer.estimate(slide))
        jobs[f"{method.__name__} full"] = maker
        jobs[f"{method.__name__} small"] = lambda maker=maker: maker(lazy=True)(small)
        jobs[f"{method.__name__} large"] = lambda maker=maker: maker(lazy=True)(large)
    times = interleaved(jobs, 3, warm_up=False)
    columns = {
        "full": f"full, {CORES} threads",
        "small": f"lazily, {small.shape[1]}x{small.shape[0]}",
        "large": f"lazily, {large.shape[1]}x{large.shape[0]}",
    }
    print(f"To evaluate colours: all 16.7 million, or those of a tile ({distinct(small):,} and {distinct(large):,})")
    print_table(
        ["method", *columns.values()],
        [[m, *(f"{times.median(f'{m} {column}'):.3f} s" for column in columns)] for m in ("Macenko", "Reinhard")],
    )


def print_speeds(times: Timings, megapixels: float, base: str) -> None:
    """Speed, time per megapixel, and time against `base`."""
    print_table(
        ["", "Mpx/s", "ms/Mpx", "time ratio"],
        [
            [n, f"{megapixels / s:.0f}", f"{1000 * s / megapixels:.2f}", f"{times.ratio(n, base):.2f}x"]
            for n in times
            for s in [times.median(n)]
        ],
    )


def centre(image: Image, side: int) -> Image:
    """The middle of an image, side x side."""
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def distinct(image: Image) -> int:
    """How many colours an image has."""
    return len(restain.ColorHistogram.from_image(image))


if __name__ == "__main__":
    main()
