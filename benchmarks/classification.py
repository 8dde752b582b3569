"""What normalizing is worth to a classifier of cytology that another scanner's images are given to.

    python benchmarks/classification.py
    python benchmarks/classification.py --write-shifted lbc/ --save-task task.safetensors
    python benchmarks/classification.py --normalizers stage1=one.safetensors stage2=two.safetensors

Fields of liquid-based cytology (Mendeley LBC, CC BY 4.0) in four classes, NL, LSIL, HSIL and SCC, are split by slide,
as far as file names tell it. A classifier is trained on those for training, once for each seed, and tested on the
others through another scanner: a stated change of stains, light and sharpness, see `shift`. The rows are CHEN's
(PAPERS §3.5): colour as it is, gray, and the two augmentations; then normalizers, before the classifier trained on
colour as it is, which never saw an augmented image. "unshifted" is what there is to win back.

Tiles are quarters of the fields. Beside the scores stands how far the colours of the tiles are from those before the
shift: the distance of Bhattacharyya and that of Hellinger, which OpenCV calls by the same name; all tiles together, 256
bins a channel, mean over channels. With --write-shifted, DIR/shifted/train is the source and DIR/wanted/train the
target to train a normalizer on, with a folder for each class: it then has seen no test image.

This set is small, and its classes come from few slides of their own colours, so that a classifier may learn those: say
what is gained and what is lost, and not how good it is. Without the data, phantoms of two densities of nuclei are told
apart.
"""

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from common import Image, data_folder, print_header, print_table, quietly
from PIL import Image as Pillow
from scipy import ndimage

import restain
from restain.evaluation.datasets.folders import list_folder
from restain.evaluation.datasets.item import Item
from restain.evaluation.datasets.patches import Patch, picture_size, spread_grid
from restain.evaluation.datasets.splits import check_split, split_items
from restain.evaluation.metrics.color_distributions import bhattacharyya, hellinger
from restain.evaluation.tasks import (
    ClassificationResult,
    Classifier,
    ClassifierSettings,
    Examples,
    Line,
    class_names,
    evaluate_classifier,
    read_examples,
    summarize,
    train_classifier,
    write_results,
)
from restain.phantom import Scanner, make_phantom

SCANNER = Scanner(white=(236.0, 231.0, 228.0), gamma=1.15, blur=0.6, noise=1.0)
STAINS = np.array([[0.75, 0.20, 0.05], [0.05, 0.85, 0.10], [0.15, 0.10, 0.85]])
"""Optical densities of red, green and blue after the shift (columns) for each unit of those before (rows): the dyes
absorb less selectively, so that blue cytoplasm turns violet and red turns brown."""

AUGMENTED = {"gray": "gray", "PCA lighting": "pca", "HSV": "hsv"}
CUTS = 2
"""Tiles along each side of a field."""
RESAMPLES = 1000
TASK_SEED = 1000
"""Of the classifier for CHEN's last stage: none of those that are tested."""


def shift(image: Image, seed: int = 0) -> Image:
    """The field (H, W, 3) uint8 as another scanner would show it in other stains.

    Densities −ln((x + 1)/256) times `STAINS`; light e^−density, blurred by a Gaussian of 0.6 pixels; to the power of
    1.15, on glass of 236, 231, 228; Gaussian noise of 1 level.
    """
    density = -np.log((image + 1.0) / 256) @ STAINS
    light = ndimage.gaussian_filter(np.exp(-density), (SCANNER.blur, SCANNER.blur, 0), mode="nearest")
    level = (np.array(SCANNER.white) + 1) * light**SCANNER.gamma - 1
    level += np.random.default_rng(seed).normal(0, SCANNER.noise, level.shape)
    return np.clip(np.rint(level), 0, 255).astype(np.uint8)


def main() -> None:
    options = read_options()
    with tempfile.TemporaryDirectory() as scratch:
        fields, data = find_fields(Path(scratch), options.classes)
        parts = split_items(fields, {"train": 0.6, "test": 0.4}, by="slide", seed=options.split)
        check_split(parts, by="slide")
        print_header("What normalizing is worth to a classifier of cytology", data)
        written = write_fields(parts, Path(options.write_shifted or scratch))
        if options.write_shifted:
            print(f"wrote {options.write_shifted}\n")
        tiles = {name: [tile for item in items for tile in quarters(item)] for name, items in written.items()}
        measure(options, tiles, data)


def measure(options: argparse.Namespace, tiles: dict[str, list[Patch]], data: str) -> None:
    """Train, test and print."""
    classes = class_names(tiles["wanted/train"])
    settings = ClassifierSettings(
        network=options.network,
        width=options.width,
        side=options.side,
        weights="scratch",
        learning_rate=options.learning_rate,
        batch_size=options.batch,
        epochs=options.epochs,
        balanced=True,
    )
    train, wanted, shifted = (
        read_examples(tiles[name], options.side, classes) for name in ("wanted/train", "wanted/test", "shifted/test")
    )
    print(
        f"{settings.network}, width {settings.width}, from random weights (pretrained=False), {settings.side} px, "
        f"{settings.epochs} epochs, batch {settings.batch_size}, Adam {settings.learning_rate:g}, classes weighed "
        f"alike, flips and turns; {options.seeds} seeds"
    )
    for name, part in (("training", train), ("test", wanted)):
        counts = np.bincount(part.truth, minlength=len(classes))
        told = ", ".join(f"{count} {label}" for label, count in zip(classes, counts, strict=True))
        print(f"{name}: {len(part)} tiles of {len(set(part.groups))} slides: {told}")
    print(f"appearances are estimated from each {options.estimate}\n")

    models = trained(train, settings, options.seeds, data)
    rows = [("unshifted", tested(models, wanted, "unshifted", data), wanted)]
    rows.append(("colour", tested(models, shifted, "colour", data), shifted))
    for name, augmentation in AUGMENTED.items():
        others = trained(train, replace(settings, augmentation=augmentation), options.seeds, data)
        rows.append((name, tested(others, shifted, name, data), shifted))
    for name, normalizer in normalizers(options, [str(tile.item.path) for tile in tiles["wanted/train"]]):
        begin = time.perf_counter()
        with quietly():
            made = read_examples(
                tiles["shifted/test"], options.side, classes, change=normalizer, estimate=options.estimate
            )
        print(f"{name}: normalized in {time.perf_counter() - begin:.0f} s", file=sys.stderr)
        rows.append((name, tested(models, made, name, data), made))
    lines = {name: summarize(results, resamples=RESAMPLES) for name, results, _ in rows}
    apart = {name: distances(wanted, examples) for name, _, examples in rows if name not in AUGMENTED}
    print_scores(lines, apart)
    if options.output:
        everything = [result for _, results, _ in rows for result in results]
        write_results(options.output, everything, [line for found in lines.values() for line in found], overwrite=True)
        print(f"wrote {options.output}")
    if options.save_task:
        train_classifier(train, settings, seed=TASK_SEED, data=data).save(options.save_task)
        print(f"wrote {options.save_task}: {settings.network}, width {settings.width}, classes {', '.join(classes)}")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=4, choices=(2, 4), help="2: NL, and lesions of all grades")
    parser.add_argument("--network", default="squeezenet1_1", choices=("squeezenet1_1", "resnet50"))
    parser.add_argument("--width", type=int, default=32, help="of the network; 64 is the published one")
    parser.add_argument("--side", type=int, default=128, help="what tiles of 256 pixels are reduced to")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--seeds", type=int, default=3, help="how many networks are trained for each row")
    parser.add_argument("--split", type=int, default=0, help="seed of the split by slide")
    parser.add_argument("--methods", default="reinhard,macenko", help="names of restain.METHODS, by commas")
    parser.add_argument("--normalizers", nargs="+", default=[], metavar="NAME=FILE", help="saved normalizers, runs")
    parser.add_argument("--estimate", default="slide", choices=("slide", "image"), help="what appearances are seen in")
    parser.add_argument("--write-shifted", metavar="DIR", help="keep the fields, before and after the shift")
    parser.add_argument("--save-task", metavar="FILE", help="train one more classifier, for CHEN's task_weights")
    parser.add_argument("--output", metavar="DIR", help="write results.json, images.csv and summary.csv")
    return parser.parse_args()


# ---- data -----------------------------------------------------------------------------------------------------------


def find_fields(scratch: Path, classes: int) -> tuple[list[Item], str]:
    """Fields with their classes and slides, and what they are."""
    folder = data_folder()
    home = None if folder is None else folder / "mendeley_lbc"
    if home is None or not home.is_dir():
        return phantoms(scratch / "phantoms"), "phantoms, crowded or not with glands (no real data found)"
    items = []
    for item in list_folder(home):
        slide = re.match(r"[A-Za-z]+_\d+", item.path.name)
        assert slide is not None, f"{item.path} does not begin with its class and slide"
        label = item.label if classes == 4 else "NL" if item.label == "NL" else "lesion"
        items.append(replace(item, dataset="mendeley_lbc", slide=slide[0].upper(), label=label))
    return items, f"Mendeley LBC (CC BY 4.0), {len(items)} fields of {len({item.slide for item in items})} slides"


def phantoms(folder: Path) -> list[Item]:
    """Two classes of phantom tissue: hardly any glass, and much of it."""
    folder.mkdir()
    items = []
    for number in range(24):
        label, glass = (("dense", 0.05), ("sparse", 0.6))[number % 2]
        path = folder / f"{label}_{number}.png"
        Pillow.fromarray(make_phantom(512, 512, seed=number, glass_fraction=glass).image).save(path)
        items.append(Item(path, "phantom", f"slide {number // 2} {label}", label=label))
    return items


def write_fields(parts: dict[str, list[Item]], folder: Path) -> dict[str, list[Item]]:
    """Every field as it is and shifted, as PNG in LOOK/PART/CLASS; items of these files by "LOOK/PART"."""
    written: dict[str, list[Item]] = {}
    for part, items in parts.items():
        for number, item in enumerate(items):
            field = np.asarray(Pillow.open(item.path).convert("RGB"))
            for look, pixels in (("wanted", field), ("shifted", shift(field, seed=number))):
                path = folder / look / part / str(item.label) / f"{item.path.stem}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Pillow.fromarray(pixels).save(path)
                written.setdefault(f"{look}/{part}", []).append(replace(item, path=path))
    return written


def quarters(item: Item) -> list[Patch]:
    """Tiles that a field is cut into."""
    size = picture_size(item)
    side = min(size) // CUTS
    return [Patch(item, corner, side) for corner in spread_grid(size, CUTS, CUTS, patch=side)]


# ---- training and testing -------------------------------------------------------------------------------------------


def trained(examples: Examples, settings: ClassifierSettings, seeds: int, data: str) -> list[Classifier]:
    """A network for each seed."""
    models = []
    for seed in range(seeds):
        begin = time.perf_counter()
        losses: list[float] = []
        told = partial(_keep, losses)
        models.append(train_classifier(examples, settings, seed=seed, data=data, report=told))
        seconds = time.perf_counter() - begin
        print(f"{settings.augmentation}, seed {seed}: last loss {losses[-1]:.3f}, {seconds:.0f} s", file=sys.stderr)
    return models


def _keep(losses: list[float], epoch: int, epochs: int, loss: float) -> None:
    losses.append(loss)


def tested(models: Sequence[Classifier], examples: Examples, name: str, data: str) -> list[ClassificationResult]:
    """Every network on the same images."""
    return [evaluate_classifier(model, examples, name=name, data=data) for model in models]


def normalizers(options: argparse.Namespace, references: list[str]) -> Iterator[tuple[str, restain.Normalizer]]:
    """Methods, fitted to the fields for training, and normalizers from files."""
    for name in filter(None, options.methods.split(",")):
        yield name, restain.METHODS[name]().fit(list(dict.fromkeys(references)))
    for given in options.normalizers:
        name, _, path = given.rpartition("=")
        yield name or Path(path).stem, restain.load(path)


def distances(wanted: Examples, made: Examples) -> tuple[float, float]:
    """Bhattacharyya's and Hellinger's, of all tiles together."""
    first, second = (examples.images.reshape(-1, examples.images.shape[2], 3) for examples in (wanted, made))
    return bhattacharyya(first, second), hellinger(first, second)


def print_scores(lines: dict[str, list[Line]], apart: dict[str, tuple[float, float]]) -> None:
    """A row a way: mean ± sd over seeds, with the interval over slides, and the distances of colours."""
    rows = []
    for name, found in lines.items():
        by_score = {line.score: line for line in found}
        cells = []
        for score in ("accuracy", "auc", "f1"):
            line = by_score[score]
            cells += [
                f"{line.mean:.3f} ± {line.sd:.3f}" if line.seeds > 1 else f"{line.mean:.3f}",
                f"{line.low:.2f}-{line.high:.2f}",
            ]
        rows.append(
            [name, *cells, *(f"{value:.3f}" for value in apart[name])] if name in apart else [name, *cells, "", ""]
        )
    print_table(["", "accuracy", "95 %", "AUC", "95 %", "macro F1", "95 %", "Bhattacharyya", "Hellinger"], rows)
    first = next(iter(lines.values()))[0]
    print(
        f"Means ± sd over {first.seeds} seeds; 95 % bootstrap intervals over {first.groups} slides. Normalizers saw no "
        "test image before but for its own appearance, unless they were trained on some. Differences below one sd are "
        "no findings."
    )


if __name__ == "__main__":
    main()
