"""StainNet's Table 2 (MITOS, aligned) on the registered pairs of the data folder, for every method, beside others.

    python benchmarks/tables.py
    python benchmarks/tables.py --environments FOLDER      # torchstain and tiatoolbox too; see peers.py
    python benchmarks/tables.py --every 4 --references 3   # a quick look
    python benchmarks/tables.py --test 07 --normalizers runs/ah ah.safetensors   # trained on the other slides

Aperio is the source, Hamamatsu the registered target; the three columns are the suite "stainnet": SSIM and PSNR to the
target, and SSIM to the source with both stretched. Which reference tile a classical method is fitted to moves its
scores by more than the method does, so each is fitted to ten tiles of the target scanner, one after the other: the mean
over references ± their standard deviation, and the best of the ten, chosen by PSNR after the fact. "all" is one fit to
all target tiles together. Every image is normalized by itself, as in the paper. These are 80 tiles of four slides, not
the paper's 7,936 patches: orderings may be compared with its table, numbers may not. The four slides are among those
that StainNet was trained on, so its released weights may have seen these very tiles; the classical methods saw one
reference each. With
--test, only the pairs of these slides are scored, and references are tiles of the others: what systems that were
trained on the others are compared on. Figures of these data may not be published.
"""

import argparse
import tempfile
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from common import CORES, Image, data_folder, print_header, print_table
from peers.environments import Worker, start

import restain
from restain.evaluation.benchmark import open_samples
from restain.evaluation.benchmark.samples import Pixels
from restain.evaluation.datasets.pairs import read_pairs
from restain.evaluation.metrics import run_suite

COLUMNS = ("ssim_target", "psnr_target", "ssim_source")
PEERS = {
    "torchstain": {"reinhard": "reinhard numpy", "macenko": "macenko numpy"},
    "tiatoolbox": {"reinhard": "reinhard", "macenko": "macenko", "vahadane": "vahadane"},
}
SLOW = {("tiatoolbox", "vahadane")}
"""A second a tile: fitted to the first reference alone."""

PAPER = """The paper's Table 2 on its own 7,936 patches (SSIM to target / PSNR / SSIM to source): Reinhard
.617/19.9/.964, Macenko .656/20.7/.966, Vahadane .664/21.1/.967, StainGAN .706/22.7/.912, StainNet .691/22.5/.957"""

Normalize = Callable[[Image], Image]


@dataclass(frozen=True)
class Scores:
    """Means over pairs, one row a reference: (references, 3), in the order of `COLUMNS`."""

    table: np.ndarray

    def cells(self, label: str) -> list[str]:
        """A row: the mean over references and their spread, and the best one."""
        mean, best = self.table.mean(axis=0), self.table[self.table[:, 1].argmax()]
        digits = (3, 2, 3)
        cells = [f"{value:.{d}f}" for value, d in zip(mean, digits, strict=True)]
        if len(self.table) > 1:
            spread = self.table.std(axis=0, ddof=1)
            cells = [f"{c} ± {s:.{d}f}" for c, s, d in zip(cells, spread, digits, strict=True)]
            best_cells = [f"{value:.{d}f}" for value, d in zip(best, digits, strict=True)]
        else:
            best_cells = ["", "", ""]
        return [label, f"{len(self.table)}", *cells, *best_cells]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--environments", type=Path, help="folder that peers.py --setup made")
    parser.add_argument("--references", type=int, default=10)
    parser.add_argument("--every", type=int, default=1, help="take every so manieth pair")
    parser.add_argument("--test", nargs="*", default=[], help="slides to score; references are of the others")
    parser.add_argument("--normalizers", nargs="*", default=[], help="trained systems and other saved normalizers")
    options = parser.parse_args()
    data = data_folder()
    if data is None or not (data / "mitos_pairs").is_dir():
        print("no pairs: set RESTAIN_DATA to a folder with mitos_pairs")
        return
    warnings.simplefilter("ignore")
    pairs = read_pairs(
        data / "mitos_pairs" / "pairs.csv", data / "mitos_pairs" / "aperio", data / "mitos_pairs" / "hamamatsu"
    )[:: options.every]
    learned = [pair for pair in pairs if options.test and pair.slide not in options.test] or pairs
    pairs = [pair for pair in pairs if not options.test or pair.slide in options.test]
    with tempfile.TemporaryDirectory() as folder:
        samples, _ = open_samples(pairs, Path(folder))
        pixels = [sample.read() for sample in samples if sample.paired]
    chosen = np.linspace(0, len(learned) - 1, options.references).astype(int)
    references = [restain.color.images.as_rgb8(read(learned[index].target)) for index in chosen]
    targets = [pair.target for pair in learned]
    print_header(
        "StainNet's Table 2, on registered pairs",
        f"{len(pixels)} of {len(pairs)} pairs of MITOS-ATYPIA tiles of 256x256, Aperio to Hamamatsu; slides "
        f"{', '.join(options.test) or 'all'}",
    )
    rows = [Scores(score_all(lambda image: image, pixels)[None]).cells("raw")]
    rows += [row for name in restain.METHODS for row in rows_of(name, references, targets, pixels)]
    weights = data / "weights" / "stainnet" / "aligned_histopathology_dataset.pth"
    if weights.exists():
        rows += stainnet_rows(weights, targets, pixels)
    for path in options.normalizers:
        rows.append(Scores(score_all(restain.load(path).transform, pixels)[None]).cells(f"trained: {Path(path).stem}"))
    for package, worker in start(options.environments).items():
        with worker:
            for method, name in PEERS.get(package, {}).items():
                used = references[:1] if (package, method) in SLOW else references
                scores, failures = peer_scores(worker, name, used, pixels)
                note = f" ({failures} failures, taken as they were)" if failures else ""
                rows.append(scores.cells(f"{package}: {method}{note}"))
    header = ["", "references", "SSIM target", "PSNR target", "SSIM source", "best: SSIM", "PSNR", "SSIM source"]
    print_table(header, rows)
    print(PAPER)


def read(path: Path) -> Image:
    """An image file as (H, W, 3) uint8."""
    with restain.open_slide(path) as slide:
        return slide.read_region((0, 0), 0, slide.dimensions)[0]


def score(normalize: Normalize, pixels: Pixels) -> list[float]:
    """The three numbers of one pair."""
    values = run_suite(
        "stainnet", normalize(pixels.source), source=pixels.source, target=pixels.target, mask=pixels.mask
    ).values
    return [values.get(column, np.nan) for column in COLUMNS]


def score_all(normalize: Normalize, pixels: Sequence[Pixels], workers: int = CORES) -> np.ndarray:
    """Means over pairs, (3,)."""
    with ThreadPoolExecutor(workers) as pool:
        return np.nanmean(list(pool.map(partial(score, normalize), pixels)), axis=0)


def rows_of(name: str, references: Sequence[Image], targets: Sequence[Path], pixels: Sequence[Pixels]) -> list:
    """A method fitted to each reference, and to all targets."""
    method = restain.METHODS[name]
    if method.fixed:
        return []
    each = Scores(np.stack([score_all(method().fit(reference).transform, pixels) for reference in references]))
    together = Scores(score_all(method().fit(list(targets)).transform, pixels)[None])
    return [each.cells(f"restain: {name}"), together.cells(f"restain: {name}, all")]


def stainnet_rows(weights: Path, targets: Sequence[Path], pixels: Sequence[Pixels]) -> list:
    """The released weights: bare, and with the glass of the target scanner."""
    from restain.released import import_stainnet

    bare = import_stainnet(weights, background="none")
    mended = import_stainnet(weights, list(targets))
    return [
        Scores(score_all(bare.transform, pixels)[None]).cells("StainNet, released weights, bare"),
        Scores(score_all(mended.transform, pixels)[None]).cells("StainNet, released weights, glass matched"),
    ]


def peer_scores(worker: Worker, name: str, references: Sequence[Image], pixels: Sequence[Pixels]) -> tuple[Scores, int]:
    """Another package's method fitted to each reference, and how many images it failed on, which count as they are."""
    failures = 0

    def normalize(image: Image) -> Image:
        nonlocal failures
        answer = worker.transform(name, image)
        failures += answer.output is None
        return image if answer.output is None else answer.output.astype(np.uint8)

    means = []
    for reference in references:
        worker.fit(name, reference)
        means.append(score_all(normalize, pixels, workers=1))
    return Scores(np.stack(means)), failures


if __name__ == "__main__":
    main()
