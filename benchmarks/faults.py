"""What is lost when `restain normalize` is killed: 50 kills (SIGKILL) at random moments, of slides and of cohorts.

    python benchmarks/faults.py [--kills 50] [--seed 0]

Every run is a process of its own, started as a user starts it, and killed at a moment drawn from the time that an
undisturbed run takes, start-up included. After each kill the input's checksums are compared, and whatever has an
output's final name is compared, pixel by pixel and level by level, with what the undisturbed run wrote. In turns of
five kills the same command is then run to its end and its outputs compared. Nothing depends on times but the moments.

A second table says which damage of a JPEG tile each decoder notices, and which it turns into wrong colours.
"""

import argparse
import hashlib
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openslide
import tifffile
from common import Image, print_header, print_table, quietly
from PIL import Image as Pillow

import restain
from restain.slides.codecs import PyramidSettings
from restain.slides.writer import write_array

TURN = 5
"""Kills before a run is let to its end."""

Levels = dict[str, list[Image]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print_header("Killed at random moments", f"phantom slides of 3384x2408, seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="restain-faults-") as name:
        folder = Path(name)
        tasks = {"slide to .tif": "out.tif", "slide to .ome.tif": "out.ome.tif", "cohort of 4 slides, 4 images": "out"}
        shares = [options.kills // 4, options.kills // 4, options.kills - 2 * (options.kills // 4)]
        rows = []
        for (title, output), kills in zip(tasks.items(), shares, strict=True):
            source = make_cohort(folder / "cohort") if output == "out" else make_slide(folder / "slide")
            print(f"{title} …", file=sys.stderr, flush=True)
            counts = kill(source, folder / f"work-{output}", output, kills, random.Random(f"{options.seed} {output}"))
            rows.append([title, *(str(counts[column]) for column in COLUMNS)])
    print_table(["", *COLUMNS], rows)
    bad = sum(int(row[1 + COLUMNS.index(column)]) for row in rows for column in BAD)
    print(f"\n{'nothing was lost' if not bad else f'{bad} FAULTS'}")
    print_damage(np.random.default_rng(options.seed))
    sys.exit(bool(bad))


COLUMNS = ("runs", "killed", "input changed", "partial outputs", "completions", "not complete", "pixels differ", "left")
BAD = ("input changed", "partial outputs", "not complete", "pixels differ", "left")


def kill(source: Path, work: Path, name: str, kills: int, generator: random.Random) -> Counter[str]:
    """Kill `kills` runs from `source` to an output of this name in the folder `work`; what came of it."""
    whole = work / "whole"
    whole.mkdir(parents=True)
    command = [sys.executable, "-m", "restain.cli", "normalize", str(source)]
    start = time.perf_counter()
    subprocess.run([*command, str(whole / name)], check=True, capture_output=True)
    seconds = time.perf_counter() - start
    wanted, checksums = read(whole / name), digest(source)
    counts: Counter[str] = Counter()
    place = work / "0"
    while counts["killed"] < kills:
        place = work / str(counts["completions"])
        place.mkdir()
        for _ in range(TURN):
            process = subprocess.Popen(
                [*command, str(place / name)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                process.wait(generator.uniform(0, seconds))
            except subprocess.TimeoutExpired:
                process.kill()
            ended = process.wait()
            counts["runs"] += 1
            counts["killed"] += ended < 0
            counts["input changed"] += digest(source) != checksums
            counts["partial outputs"] += not same(read(place / name), wanted)
            if counts["killed"] == kills or ended >= 0:  # it was quicker, and there is nothing left to kill
                break
        start = time.perf_counter()
        last = subprocess.run([*command, str(place / name)], capture_output=True, text=True)
        if ended < 0:
            seconds = min(seconds, time.perf_counter() - start)  # other programs may have slowed the first run
        counts["completions"] += 1
        found = read(place / name)
        counts["not complete"] += found.keys() != wanted.keys() or (last.returncode != 0 and "exist" not in last.stderr)
        counts["pixels differ"] += not same(found, wanted)
        counts["left"] += len(list(place.rglob("*.part")))
        counts["input changed"] += digest(source) != checksums
    return counts


def print_damage(generator: np.random.Generator) -> None:
    """Change one tile of a slide in several ways, and print what decoders make of it."""
    with tempfile.TemporaryDirectory() as folder, quietly():
        path = Path(folder) / "slide.tif"
        write_array(path, restain.make_phantom(256, 256, seed=1).image, settings=PyramidSettings(tile=64))
        data = path.read_bytes()
        with tifffile.TiffFile(path) as handle:
            start, count = handle.pages.first.dataoffsets[5], handle.pages.first.databytecounts[5]
        pixels, middle = data.index(b"\xff\xda", start) - start + 14, count // 2
        places = generator.integers(pixels, count - 18, 60)
        flips = list(zip(places, 1 << generator.integers(0, 8, 60), strict=True))
        changes = {
            "one bit of the pixels flipped": [(p, bytes([data[start + p] ^ bit])) for p, bit in flips],
            "16 random bytes in the pixels": [(p, generator.bytes(16)) for p in places],
            "zeros from the middle to the end": [(middle, bytes(count - middle))],
            "zeros from the middle, but an end": [(middle, bytes(count - middle - 2))],
            "the end's marker in the middle": [(middle, b"\xff\xd9")],
            "16 bytes lost": [(p, data[start + p + 16 : start + count] + bytes(16)) for p in places],
            "zeros throughout": [(0, bytes(count))],
        }
        wanted = {name: read(path) for name, read in DECODERS.items()}
        rows = []
        for title, edits in changes.items():
            found = {name: Counter[str]() for name in DECODERS}
            for place, new in edits:
                path.write_bytes(data[: start + place] + new + data[start + place + len(new) :])
                for name, read in DECODERS.items():
                    found[name][outcome(read, path, wanted[name])] += 1
            rows.append([title, *(", ".join(f"{n} {what}" for what, n in found[name].items()) for name in DECODERS)])
    print_table(["one JPEG tile", *DECODERS], rows)


def outcome(read: Callable[[Path], Image], path: Path, wanted: Image) -> str:
    try:
        return "same" if np.array_equal(read(path), wanted) else "wrong"
    except Exception:  # whatever a library raises: it noticed
        return "noticed"


def by_restain(path: Path) -> Image:
    with restain.open_slide(path) as slide:
        return slide.read_region((0, 0), 0, slide.dimensions)[0]


def by_openslide(path: Path) -> Image:
    with openslide.OpenSlide(str(path)) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions))


DECODERS: dict[str, Callable[[Path], Image]] = {
    "restain": by_restain,
    "OpenSlide": by_openslide,
    "tifffile": lambda path: tifffile.imread(path),
    "Pillow": lambda path: np.asarray(Pillow.open(path)),
}


def make_slide(folder: Path) -> Path:
    """A folder's slide, made once."""
    path = folder / "slide.tif"
    if not path.exists():
        folder.mkdir(parents=True)
        tissue = restain.make_phantom(602, 846, seed=3, scanner=restain.Scanner(noise=1.0)).image
        write_array(path, np.tile(tissue, (4, 4, 1)), settings=PyramidSettings(tile=256), mpp=(0.5, 0.5))
    return path


def make_cohort(folder: Path) -> Path:
    for number in range(4):
        make_slide(folder / str(number))
        tissue = restain.make_phantom(300, 400, seed=number).image
        Pillow.fromarray(tissue).save(folder / f"{number}.png")
    return folder


def digest(source: Path) -> dict[str, str]:
    """The checksum of an input, or of every file in it."""
    files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read(output: Path) -> Levels:
    """Every level of every image that has its final name, by readers that are not restain's."""
    found: Levels = {}
    for path in [output] if output.is_file() else sorted(output.rglob("*")):
        if any(part.startswith(".") for part in path.relative_to(output.parent).parts) or not path.is_file():
            continue
        if path.suffix == ".tif":
            with tifffile.TiffFile(path) as handle:
                found[path.name if path == output else str(path.relative_to(output))] = [
                    level.asarray() for level in handle.series[0].levels
                ]
        elif path.suffix == ".png":
            found[str(path.relative_to(output))] = [np.asarray(Pillow.open(path))]
    return found


def same(some: Levels, wanted: Levels) -> bool:
    return all(
        name in wanted and len(levels) == len(wanted[name]) and all(map(np.array_equal, levels, wanted[name]))
        for name, levels in some.items()
    )


if __name__ == "__main__":
    main()
