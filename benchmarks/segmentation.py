"""What normalizing is worth to a U-Net that finds glands in stains it was not trained on.

    python benchmarks/segmentation.py
    python benchmarks/segmentation.py --phantom
    python benchmarks/segmentation.py --methods macenko,vahadane --normalizers chen=chen.safetensors run/
    python benchmarks/segmentation.py --width 64 --side 256 --epochs 100        (the protocol of DSTGAN's table)

The images of GlaS fall into six clusters of style, which its copy lists in style.csv. A U-Net is trained on some of
them, once for each seed, and tested on others: as they are, and as every method makes them that is fitted to the
training images. Each picture is normalized by an estimate of its own, whole; then squares of 256 pixels are cut from
it. Scores are means over pictures, whose squares are pooled; then over seeds. Nothing is learned from test images but
each one's own appearance. Clusters are style, not patients, whom this copy does not name.

GlaS is for research alone: its numbers are not to be published with free software. With --phantom, or without the
data, nuclei of phantoms in two stains are found instead.
"""

import argparse
import csv
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from common import data_folder, print_header, print_table, quietly
from PIL import Image as Pillow

import restain
from restain.errors import InputError
from restain.evaluation.datasets import list_glas
from restain.evaluation.datasets.item import Item
from restain.evaluation.datasets.patches import PATCH, Patch, picture_size, spread_grid
from restain.evaluation.datasets.splits import check_split
from restain.evaluation.tasks import (
    Line,
    SegmentationResult,
    Segmenter,
    SegmenterSettings,
    evaluate_segmenter,
    read_examples,
    summarize,
    train_segmenter,
    write_results,
)
from restain.phantom import STAINS_A, STAINS_B, Scanner, make_phantom

SHOWN = ("dice", "iou", "pixel_accuracy")
TRAIN, TEST = "0,2,4", "1,5"
"""Dark and middling pictures for training, pale ones for testing."""
RESAMPLES = 1000


def main() -> None:
    options = read_options()
    with tempfile.TemporaryDirectory() as folder:
        parts, data = find_data(options, Path(folder))
        check_split(parts)
        print_header("What normalizing is worth to a segmenter", data)
        patches = {name: [patch for item in items for patch in squares(item)] for name, items in parts.items()}
        settings = SegmenterSettings(
            width=options.width, side=options.side, epochs=options.epochs, batch_size=options.batch
        )
        print(
            f"U-Net of {settings.width} channels from random weights (pretrained=False), {settings.side} px, "
            f"{settings.epochs} epochs, batch {settings.batch_size}, Adam {settings.learning_rate:g}, BCE + Dice, "
            f"flips and turns; {options.seeds} seeds\n"
            f"training: {len(parts['train'])} pictures, {len(patches['train'])} squares; "
            f"test: {len(parts['test'])} pictures, {len(patches['test'])} squares\n"
        )
        models = train(patches["train"], settings, options.seeds, data)
        results = []
        train_files = [str(item.path) for item in parts["train"]]
        for name, normalizer in [("raw", None), *fitted(options, train_files)]:
            results.append(test(models, patches["test"], name, normalizer, data))
    lines = [line for found in results for line in summarize(found, resamples=RESAMPLES)]
    print_scores(lines)
    if options.output:
        write_results(options.output, [result for found in results for result in found], lines, overwrite=True)
        print(f"wrote {options.output}")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phantom", action="store_true", help="nuclei of phantoms, even where GlaS is at hand")
    parser.add_argument("--train", default=TRAIN, metavar="CLUSTERS", help=f"style clusters for training ({TRAIN})")
    parser.add_argument("--test", default=TEST, metavar="CLUSTERS", help=f"style clusters for testing ({TEST})")
    parser.add_argument("--width", type=int, default=8, help="channels of the U-Net; 64 is the paper's")
    parser.add_argument("--side", type=int, default=128, help="what squares of 256 pixels are reduced to")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3, help="how many networks are trained")
    parser.add_argument("--methods", help="names of restain.METHODS, by commas; all that can be fitted by default")
    parser.add_argument("--normalizers", nargs="+", default=[], metavar="[NAME=]FILE", help="saved normalizers, runs")
    parser.add_argument("--output", metavar="DIR", help="write results.json, images.csv and summary.csv")
    return parser.parse_args()


# ---- data -----------------------------------------------------------------------------------------------------------


def find_data(options: argparse.Namespace, scratch: Path) -> tuple[dict[str, list[Item]], str]:
    """Items for training and for testing, and what they are."""
    folder = data_folder()
    table = None if folder is None or options.phantom else folder / "glas" / "style.csv"
    if table is None or not table.is_file():
        return phantoms(scratch), "nuclei of phantom H&E tissue: 8 pictures of stain A for training, 6 of B for testing"
    with table.open(encoding="utf-8") as stream:
        clusters = {f"{row['split'].lower()}_{row['idx']}": row["cluster"] for row in csv.DictReader(stream)}
    items = list_glas(table.parent)
    wanted = {"train": options.train.split(","), "test": options.test.split(",")}
    parts = {
        part: [item for item in items if clusters.get(item.path.stem) in chosen] for part, chosen in wanted.items()
    }
    if not all(parts.values()) or set(wanted["train"]) & set(wanted["test"]):
        raise SystemExit(f"clusters are {', '.join(sorted(set(clusters.values())))}; wanted some in each part, in one")
    return parts, f"GlaS glands, style clusters {options.train} for training, {options.test} for testing"


def phantoms(folder: Path) -> dict[str, list[Item]]:
    """Tissue of two labs and scanners, with its nuclei as masks; every picture is another slide."""
    looks = {
        "train": (range(8), STAINS_A, Scanner(noise=1.0)),
        "test": (range(50, 56), STAINS_B, Scanner((236, 231, 228), 1.2, 0.5, 1.0)),
    }
    parts: dict[str, list[Item]] = {}
    for part, (seeds, stains, scanner) in looks.items():
        for number in seeds:
            made = make_phantom(512, 512, seed=number, stain_matrix=stains, scanner=scanner)
            image, mask = folder / f"{part}_{number}.png", folder / f"{part}_{number}_mask.png"
            Pillow.fromarray(made.image).save(image)
            Pillow.fromarray(made.nuclei.astype(np.uint8)).save(mask)
            parts.setdefault(part, []).append(Item(image, "phantom", f"{part} {number}", mask=mask))
    return parts


def squares(item: Item) -> list[Patch]:
    """As many squares as fit beside each other."""
    width, height = picture_size(item)
    corners = spread_grid((width, height), height // PATCH, width // PATCH)
    return [Patch(item, corner) for corner in corners]


# ---- training and testing -------------------------------------------------------------------------------------------


def train(patches: Sequence[Patch], settings: SegmenterSettings, seeds: int, data: str) -> list[Segmenter]:
    """A network for each seed."""
    examples = read_examples(patches, settings.side)
    models = []
    for seed in range(seeds):
        begin = time.perf_counter()
        models.append(train_segmenter(examples, settings, seed=seed, data=data, report=heard(seed)))
        print(f"seed {seed}: trained in {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    return models


def heard(seed: int):
    """Progress on the terminal."""
    return lambda epoch, epochs, loss: (
        print(f"seed {seed}: epoch {epoch} of {epochs}, loss {loss:.3f}", file=sys.stderr)
        if epoch % 10 == 0 or epoch == epochs
        else None
    )


def fitted(options: argparse.Namespace, references: list[str]) -> Iterator[tuple[str, restain.Normalizer]]:
    """Methods, fitted to the training images, and normalizers from files."""
    asked = options.methods.split(",") if options.methods else None
    for name in restain.METHODS if asked is None else [name for name in asked if name]:
        try:
            method = restain.METHODS[name]()
        except InputError as error:  # a table or weights would have to be given
            if asked is not None:
                raise SystemExit(str(error)) from None
            continue
        yield name, method.fit(references)
    for given in options.normalizers:
        name, _, path = given.rpartition("=")
        yield name or Path(path).stem, restain.load(path)


def test(
    models: Sequence[Segmenter], patches: Sequence[Patch], name: str, normalizer: restain.Normalizer | None, data: str
) -> list[SegmentationResult]:
    """Every network on the same images, normalized once; without Grade.csv, a picture counts as a slide."""
    begin = time.perf_counter()
    with quietly():
        examples = read_examples(patches, models[0].settings.side, change=normalizer, estimate="slide")
    print(f"{name}: read and normalized in {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    return [evaluate_segmenter(model, examples, name=name, data=data) for model in models]


def print_scores(lines: Sequence[Line]) -> None:
    """A row a normalizer: mean ± sd over seeds of each score, and the interval of Dice over pictures."""
    names = list(dict.fromkeys(line.normalizer for line in lines))
    found = {(line.normalizer, line.score): line for line in lines}
    rows = []
    for name in names:
        first = found[name, SHOWN[0]]
        cells = [spread(found[name, score]) for score in SHOWN]
        rows.append([name, cells[0], f"{first.low:.3f}-{first.high:.3f}", *cells[1:]])
    print_table(["", "Dice", "95 %", "IoU", "pixel accuracy"], rows)
    first = found[names[0], SHOWN[0]]
    print(
        f"Means over {first.images} pictures, ± sd over {first.seeds} seeds; 95 % bootstrap interval over "
        f"{first.groups} groups. Differences below one sd are no findings."
    )


def spread(line: Line) -> str:
    """Mean ± sd over seeds; of one seed the value."""
    return f"{line.mean:.3f} ± {line.sd:.3f}" if line.seeds > 1 else f"{line.mean:.3f}"


if __name__ == "__main__":
    main()
