"""What `restain evaluate` costs on a folder of a thousand tiles: registering, measuring, and LPIPS by the tile.

    python benchmarks/evaluation.py [--tiles 1000]

Tiles are cut from the slide's tissue, and their targets are the same tiles in another look, moved by a few pixels, so
that registration has its usual work. LPIPS runs here on weights by chance, for its cost alone.
"""

import argparse
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from common import Image, he_slide, print_goal, print_header, print_table
from PIL import Image as Pillow

import restain
from restain.evaluation.benchmark import evaluate, make_contenders, open_samples
from restain.evaluation.datasets.pairs import pair_folders
from restain.evaluation.metrics.perceptual import lpips

TILE = 256
MOVED = (3, 2)
MINUTES = 10
SUITES = ("stainnet", "toolkit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=1000)
    number = parser.parse_args().tiles
    slide, name = he_slide()
    print_header(
        "What an evaluation costs", f"{number} tiles of {TILE}x{TILE} from {name}, and the same in another look"
    )
    with tempfile.TemporaryDirectory() as folder:
        cut(slide, number, Path(folder))
        pairs, _ = pair_folders(f"{folder}/source", f"{folder}/target")
        begin = time.perf_counter()
        samples, _ = open_samples(pairs, Path(folder) / "registration")
        registered = time.perf_counter() - begin
        contenders = make_contenders(["macenko", "reinhard"], f"{folder}/target")
        begin = time.perf_counter()
        evaluation = evaluate(samples, contenders, SUITES)
        measured = time.perf_counter() - begin
        perceived = lpips_seconds(slide, Path(folder))
    outputs = number * len(contenders)
    rows = [
        ["registering, once a pair", f"{registered:.0f}", f"{1000 * registered / number:.0f} a pair"],
        [f"measuring {outputs} outputs, {' and '.join(SUITES)}", f"{measured:.0f}", f"{1000 * measured / outputs:.0f}"],
        ["LPIPS (AlexNet) of as many, at its speed alone", f"{perceived * outputs:.0f}", f"{1000 * perceived:.0f}"],
    ]
    print_table(["", "s", "ms an image"], rows)
    print(f"numbers: {len(evaluation.rows)}; without {', '.join(metric for _, metric in evaluation.skipped)}")
    print_goal("all of it, LPIPS included", (registered + measured + perceived * outputs) / 60, MINUTES, unit=" min")


def cut(slide: Image, number: int, folder: Path) -> None:
    """Write tiles of the slide's tissue, and the same moved and in another look."""
    other = restain.Reinhard().fit("he").transform(slide)
    generator = np.random.default_rng(0)
    for name in ("source", "target"):
        (folder / name).mkdir()
    written = 0
    while written < number:
        top, left = (int(generator.integers(0, side - TILE - max(MOVED))) for side in slide.shape[:2])
        tile = slide[top : top + TILE, left : left + TILE]
        if (tile[..., 1] < 210).mean() < 0.25:
            continue
        moved = other[top + MOVED[0] : top + MOVED[0] + TILE, left + MOVED[1] : left + MOVED[1] + TILE]
        for pixels, name in ((tile, "source"), (moved, "target")):
            Pillow.fromarray(np.ascontiguousarray(pixels)).save(folder / name / f"{written:04d}.png")
        written += 1


def lpips_seconds(slide: Image, folder: Path, rounds: int = 20) -> float:
    """Seconds of LPIPS for one tile, on weights by chance."""
    import torch
    from safetensors.torch import save_file

    from restain.networks.backbones.alexnet import AlexNet

    torch.manual_seed(0)
    save_file(AlexNet().state_dict(), folder / "chance.safetensors")
    tiles = [np.ascontiguousarray(slide[i * 64 : i * 64 + TILE, :TILE]) for i in range(rounds + 1)]
    lpips(tiles[0], tiles[1], weights=folder / "chance.safetensors")
    begin = time.perf_counter()
    for first, second in pairwise(tiles):
        lpips(first, second, weights=folder / "chance.safetensors")
    return (time.perf_counter() - begin) / rounds


if __name__ == "__main__":
    main()
