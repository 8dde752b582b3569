"""What trained systems make of tissue they were not trained on, beside Reinhard, Macenko and Vahadane.

    python benchmarks/trained.py --pairs 07 --normalizers runs/dstgan runs/nst   # trained on the other slides' tiles
    python benchmarks/trained.py --write tissue                                  # tiles to train on that all may share
    restain train dstgan --recipe dstgan-small --source tissue/source/train --target tissue/target/train -o runs/free
    python benchmarks/trained.py --tissue tissue --normalizers runs/free --picture trained.png

Pairs: MITOS-ATYPIA tiles, Aperio to Hamamatsu, registered; figures of these data may not be published. Tissue: the
source is CMU-1 (Aperio, CC0), its left two thirds for training and the rest for testing; the target is CRC-VAL-HE
(Mannheim, CC BY 4.0), every fourth tile for testing; no pixel corresponds.

Is the tissue still there: SSIM, correlation and PSNR of the output's gray to the source's, as DSTGAN's paper has them
(an untouched image scores 1, 1 and infinity). Does it look like the target: of pairs, SSIM and PSNR to the registered
target and the distance in the features of SqueezeNet 1.0; of tissue, the Hellinger distance of all output colours to
all target colours. Classical methods are fitted to all training tiles of the target together. Each image is normalized
by itself. Intervals are 95 %, by bootstrap over tiles: they say nothing of other slides.
"""

import argparse
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from common import CORES, Image, data_folder, he_slide, print_header, print_table, save_strips

import restain
from restain.evaluation.benchmark import open_samples
from restain.evaluation.benchmark.samples import Pixels
from restain.evaluation.datasets.pairs import read_pairs
from restain.evaluation.metrics import run_suite
from restain.evaluation.metrics.color_distributions import hellinger
from restain.evaluation.metrics.suites import SUITES, Entry

CLASSICAL = ("reinhard", "macenko", "vahadane")
TO_TARGET = {
    "ssim_target": Entry("ssim", "target"),
    "psnr_target": Entry("psnr", "target"),
    "features_target": Entry("squeeze_feature_distance", "target"),
}
LINES = SUITES["dstgan"] | TO_TARGET
DIGITS = {"psnr_source": 2, "psnr_target": 2}
RESAMPLES = 2000
SIDE = 256

Normalize = Callable[[Image], Image]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", nargs="*", default=[], help="slides to test on")
    parser.add_argument("--tissue", type=Path, help="folder that --write made")
    parser.add_argument("--write", type=Path, help="write the tiles of the free slides into a new folder, and end")
    parser.add_argument("--normalizers", nargs="*", default=[], help="runs and saved normalizers; name=PATH names one")
    parser.add_argument("--picture", help="write what they make of four tiles")
    options = parser.parse_args()
    data = data_folder()
    if data is None:
        print("no data: set RESTAIN_DATA")
        return
    if options.write:
        write_tissue(data, options.write)
        return
    warnings.simplefilter("ignore")
    if options.tissue:
        samples = [Pixels(read(path)) for path in files(options.tissue / "source" / "test")]
        references = files(options.tissue / "target" / "train")
        wanted = [read(path) for path in files(options.tissue / "target" / "test")]
        what = f"{len(samples)} tiles of CMU-1 to the look of CRC-VAL-HE ({len(wanted)} tiles)"
    else:
        samples, references = mitos(data, options.pairs or ["07"])
        wanted = []
        what = f"{len(samples)} registered tiles of MITOS-ATYPIA, slides {', '.join(options.pairs or ['07'])}"
    print_header("Trained systems on tissue they have not seen", what)
    contenders: dict[str, Normalize] = {"raw": lambda image: image}
    for name in CLASSICAL:
        contenders[name] = restain.METHODS[name]().fit(references).transform
    for given in options.normalizers:
        name, equals, path = given.partition("=")
        contenders[name if equals else Path(given).stem] = restain.load(path if equals else given).transform
    made = {name: [normalize(sample.source) for sample in samples] for name, normalize in contenders.items()}
    print_scores(made, samples, wanted, data)
    if options.picture:
        chosen = np.linspace(0, len(samples) - 1, 4).astype(int)
        target = [("a target", wanted[i % len(wanted)]) for i in chosen] if wanted else []
        rows = [[(name, images[i]) for name, images in made.items()] for i in chosen]
        if not wanted:
            rows = [[*row, ("target", samples[i].target)] for row, i in zip(rows, chosen, strict=True)]
        else:
            rows = [[*row, (label, pad(image))] for row, (label, image) in zip(rows, target, strict=True)]
        save_strips(options.picture, rows)


def print_scores(made: dict[str, list[Image]], samples: Sequence[Pixels], wanted: Sequence[Image], data: Path) -> None:
    """One row a contender, every number with its interval."""
    labels = [label for label in LINES if not (wanted and label in TO_TARGET)]
    weights = data / "weights" / "squeezenet_v1.0" / "squeezenet_v1.0_decoded.npz"
    extra = {"features_target": {"weights": weights}}
    rows = []
    for name, images in made.items():
        results = [
            run_suite(LINES, image, source=sample.source, target=sample.target, mask=sample.mask, options=extra).values
            for image, sample in zip(images, samples, strict=True)
        ]
        cells = [interval([result.get(label, np.nan) for result in results], DIGITS.get(label, 3)) for label in labels]
        if wanted:
            cells.append(f"{hellinger(np.concatenate(flat(wanted)), np.concatenate(flat(images))):.3f}")
        rows.append([name, *cells])
    print_table(["", *labels, *(["hellinger_target"] if wanted else [])], rows)


def interval(values: Sequence[float], digits: int) -> str:
    """The mean and its 95 % interval, of the finite values."""
    finite = np.array([value for value in values if np.isfinite(value)])
    if not len(finite):
        return "-"
    drawn = np.random.default_rng(0).integers(0, len(finite), (RESAMPLES, len(finite)))
    low, high = np.percentile(finite[drawn].mean(axis=1), [2.5, 97.5])
    return f"{finite.mean():.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def flat(images: Sequence[Image]) -> list[Image]:
    """Images as columns of pixels, (H·W, 1, 3), whatever their sizes."""
    return [image.reshape(-1, 1, 3) for image in images]


def pad(image: Image) -> Image:
    """A smaller tile on white."""
    canvas = np.full((SIDE, SIDE, 3), 255, np.uint8)
    canvas[: image.shape[0], : image.shape[1]] = image[:SIDE, :SIDE]
    return canvas


def mitos(data: Path, slides: Sequence[str]) -> tuple[list[Pixels], list[Path]]:
    """The registered pairs of these slides, and the target tiles of the others."""
    folder = data / "mitos_pairs"
    pairs = read_pairs(folder / "pairs.csv", folder / "aperio", folder / "hamamatsu")
    with tempfile.TemporaryDirectory() as registrations:
        tested = [pair for pair in pairs if pair.slide in slides]
        samples, _ = open_samples(tested, Path(registrations), workers=CORES)
        pixels = [sample.read() for sample in samples if sample.paired]
    return pixels, [pair.target for pair in pairs if pair.slide not in slides]


def write_tissue(data: Path, folder: Path) -> None:
    """Cut CMU-1 into tiles, and copy CRC-VAL's, apart for training and testing."""
    from PIL import Image as Pillow

    slide, _ = he_slide()
    tiles: list[tuple[str, str, Image]] = []
    for y in range(0, slide.shape[0] - SIDE + 1, SIDE):
        for x in range(0, slide.shape[1] - SIDE + 1, SIDE):
            part = "train" if x + SIDE <= slide.shape[1] * 2 // 3 else "test"
            tiles.append(("source", f"{part}/{y:04d}_{x:04d}", slide[y : y + SIDE, x : x + SIDE]))
    for number, path in enumerate(files(data / "crc_val_he_7k")):
        tiles.append(("target", f"{'train' if number % 4 else 'test'}/{path.parent.name}_{path.stem}", read(path)))
    for role, name, pixels in tiles:
        path = folder / role / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(pixels).save(path)
    print(f"wrote {len(tiles)} tiles into {folder}")


def files(folder: Path) -> list[Path]:
    """The images below a folder, in order."""
    return sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".jpg", ".tif"))


def read(path: Path) -> Image:
    """An image file as (H, W, 3) uint8."""
    with restain.open_slide(path) as slide:
        return slide.read_region((0, 0), 0, slide.dimensions)[0]


if __name__ == "__main__":
    main()
