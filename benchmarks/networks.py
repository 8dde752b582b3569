"""How fast networks normalize, beside a plain loop over tiles; and whether seams show in a slide.

    python benchmarks/networks.py                                   # speed
    python benchmarks/networks.py --normalizers runs/ah runs/nst    # speed of trained systems
    python benchmarks/networks.py --seams runs/ah runs/stst         # seams of trained systems
    python benchmarks/networks.py --seams runs/ah --picture seams.png

Speed: the plain loop is PyTorch as it comes: one tile after the other, float32, channels first, each with its own norm
statistics. restain's forward pass is on the same tiles, with frozen statistics folded into the convolutions and the
network made ready for this hardware (`restain.networks.inference`). "Slide" is all of it on a slide: windows that
overlap by 64 pixels and are blended, the glass rule, windows of glass spared. The last row is the same work by a colour
map, which is what a network becomes when it is distilled. Random weights blow small errors up, so that bfloat16, where
it is at hand, may fail the check that trained ones pass, and be left for float32: only trained weights tell.

Seams: the slide is normalized in windows with frozen statistics, and, for comparison, cut into tiles of 256 that are
normalized one by one. The score is the mean absolute difference between the pixels on either side of a border, over
that between neighbours one pixel further inside; here on the borders of tiles, and on those of the windows' grid, each
over the source's own score there. The goal is at most 1.05.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from common import CORES, Image, he_slide, interleaved, print_header, print_table, save_strips

import restain
from restain.methods.windows import apply_windows
from restain.networks.inference import fast
from restain.networks.norm_statistics import folded
from restain.systems import SYSTEMS, System
from restain.systems.windows import to_tensor

SYSTEM_SIZES = {
    "staingan (Res9)": ("staingan", {}, 512),
    "staingan-small": ("staingan", {"channels": 24, "blocks": 4, "discriminator_layers": 2, "crop": 96}, 512),
    "stst": ("stst", {}, 256),
    "stst-small": ("stst", {"channels": 16}, 256),
    "stainnet, 3x3 + 1x1 + 1x1": ("stainnet", {"kernels": (3, 1, 1)}, 512),
    "nst (HRNet)": ("nst", {}, 512),
    "chen": ("chen", {}, 512),
    "dstgan": ("dstgan", {}, 256),
}
TURNS = 3


def random_system(name: str, config: dict) -> System:
    """A system with its initial weights, made to look trained."""
    torch.manual_seed(0)
    return SYSTEMS[name](config=config, trainable=False).finish([240.0, 238.0, 242.0], "glass", {})


def speed(label: str, system: System, side: int, slide: Image) -> list[str]:
    """One row: Mpx/s of the plain loop, of the ready network, and of the slide."""
    count = max(1, min(4, 2_000_000 // side**2)) if "small" in label or system.name == "stainnet" else 2
    rows, columns = slide.shape[0] // side, slide.shape[1] // side
    chosen = np.linspace(0, rows * columns - 1, count).astype(int)
    tiles = [slide[(i // columns) * side :, (i % columns) * side :][:side, :side] for i in chosen]
    plain = system.deployed()
    appearance = system.with_statistics(system.estimate(slide), [tile[:256, :256] for tile in tiles])
    samples = to_tensor(np.stack(tiles[:1]))  # that bfloat16 is checked on
    ready = fast(folded(system.inference_network(appearance)), (1, 3, side, side), samples=samples, level=1 / 255)

    def plainly() -> None:
        with torch.inference_mode():
            for tile in tiles:
                images = torch.from_numpy(np.ascontiguousarray(tile)).permute(2, 0, 1)[None].contiguous().float() / 255
                (plain(images) * 255).round().to(torch.uint8)

    def readily() -> None:
        for tile in tiles:
            (ready(to_tensor(np.ascontiguousarray(tile)[None])) * 255).round().to(torch.uint8)

    windows = system.pixel_map(appearance)
    reach = 2 * (windows.side - windows.overlap)  # two windows each way
    part = slide[:reach, :reach]

    def whole() -> None:
        apply_windows(part, windows)

    slow = getattr(system.config, "blocks", 0) == 9  # half a minute a turn on two cores
    timings = interleaved({"plain": plainly, "ready": readily, "slide": whole}, 2 if slow else TURNS, warm_up=not slow)
    pixels = count * side**2 / 1e6
    area = part.shape[0] * part.shape[1] / 1e6
    eager, made_ready, on_slide = (
        pixels / timings.median("plain"),
        pixels / timings.median("ready"),
        area / timings.median("slide"),
    )
    return [
        label,
        f"{side}",
        f"{eager:.3f}",
        f"{made_ready:.3f}",
        f"{made_ready / eager:.2f}x",
        f"{on_slide:.3f}",
        f"{on_slide / eager:.2f}x",
        ready.description,
    ]


def distilled(slide: Image) -> list[str]:
    """The row of a colour map; which one does not matter."""
    normalizer = restain.Macenko().fit("he")
    color_map = normalizer.color_map(normalizer.estimate(slide))
    timings = interleaved({"map": lambda: color_map(slide)}, 9)
    rate = f"{slide.shape[0] * slide.shape[1] / 1e6 / timings.median('map'):.0f}"
    return ["any, distilled to a colour map", "", "", "", "", rate, "", "a table of colours"]


def window_borders(length: int, side: int, overlap: int) -> list[int]:
    """Where windows begin and end along an axis, inside the slide."""
    starts = range(-overlap // 2, length, side - overlap)
    return sorted({x for start in starts for x in (start, start + side) if 2 <= x <= length - 2})


def score(image: Image, across: Sequence[int], down: Sequence[int]) -> float:
    """The seam score at these columns and rows."""
    levels = image.astype(np.int16)
    steps = inside = 0.0
    for turned, borders in ((levels, across), (levels.transpose(1, 0, 2), down)):
        for x in borders:
            steps += float(np.abs(turned[:, x] - turned[:, x - 1]).mean())
            before, after = (np.abs(turned[:, x + i] - turned[:, x + i - 1]).mean() for i in (-1, 1))
            inside += float(before + after) / 2
    return steps / inside


def seams(paths: Sequence[str], picture: str | None) -> None:
    """Print the seams of every trained system on the slide."""
    slide, name = he_slide()
    print_header("Seams of networks on a slide", name)
    height, width = slide.shape[:2]
    tiles = (list(range(256, width - 1, 256)), list(range(256, height - 1, 256)))
    rows, strips = [], []
    for path in paths:
        system = restain.load(path)
        appearance = system.estimate_image(slide)
        windows = system.pixel_map(appearance)
        blended = apply_windows(slide, windows)
        apart = np.empty_like(slide)
        for y in range(0, height, 256):
            for x in range(0, width, 256):
                apart[y : y + 256, x : x + 256] = system.transform(slide[y : y + 256, x : x + 256])
        grid = tuple(window_borders(side, windows.side, windows.overlap) for side in (width, height))
        for label, image in (("windows, frozen statistics", blended), ("tiles of 256 one by one", apart)):
            ratios = [score(image, *borders) / score(slide, *borders) for borders in (grid, tiles)]
            rows.append([system.name, label, f"{ratios[0]:.3f}", f"{ratios[1]:.3f}"])
        crop = np.s_[1024:1536, 512:1024]
        strips.append([("source", slide[crop]), (f"{system.name}, windows", blended[crop]), ("tiles", apart[crop])])
    print_table(["system", "normalized in", "score at windows' borders", "score at tiles' borders"], rows)
    if picture:
        save_strips(picture, [[(label, np.ascontiguousarray(image)) for label, image in strip] for strip in strips])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seams", nargs="*", default=[], metavar="RUN", help="trained systems, whose seams are scored")
    parser.add_argument("--picture", metavar="FILE", help="with --seams: write source, windows and tiles, side by side")
    parser.add_argument("--only", choices=SYSTEM_SIZES, help="measure the speed of this one alone")
    parser.add_argument(
        "--normalizers", nargs="*", default=[], metavar="RUN", help="trained systems, instead of random"
    )
    options = parser.parse_args()
    if options.seams:
        seams([str(Path(path)) for path in options.seams], options.picture)
        return
    slide, name = he_slide()
    print_header("Speed of networks, Mpx/s", f"{name}; {CORES} threads")
    table = []
    for path in options.normalizers:
        system = restain.load(path)
        side = 256 if system.name in ("stst", "dstgan") else 512
        table.append(speed(f"{system.name}, {Path(path).name}", system, side, slide))
    for label in [] if options.normalizers else [options.only] if options.only else SYSTEM_SIZES:
        kind, config, side = SYSTEM_SIZES[label]
        table.append(speed(label, random_system(kind, config), side, slide))
    header = ["network", "tile", "plain loop", "made ready", "ratio", "slide", "ratio", "how"]
    print_table(header, [*table, distilled(slide)])


if __name__ == "__main__":
    main()
