"""What the benchmarks share: the lines that say where and on what, interleaved timing, a table. Nothing to run."""

import os
import platform
import statistics
import subprocess
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

Image = NDArray[np.uint8]


# ---- where and on what ----------------------------------------------------------------------------------------------


def print_header(title: str, data: str) -> None:
    """Print what is measured, on what data, on what machine, when, and at which commit."""
    packages = ", ".join(f"{name} {found}" for name in ("numpy", "numba", "torch") if (found := _version(name)))
    print(title)
    print(f"data:    {data}")
    print(f"machine: {CORES} cores, {_cpu()}, {platform.system()}, Python {platform.python_version()}, {packages}")
    print(f"date:    {date.today()}, commit {_commit()}", end="\n\n")


def data_folder() -> Path | None:
    """The folder of real images: RESTAIN_DATA, else ../shared/data beside the repository; None where absent."""
    given = os.environ.get("RESTAIN_DATA")
    folder = Path(given) if given else ROOT.parent / "shared" / "data"
    return folder if folder.is_dir() else None


def he_slide() -> tuple[Image, str]:
    """A whole H&E slide at full resolution, (H, W, 3) uint8, and what it is; phantom tissue without data."""
    import restain

    path = _data_file("wsi/CMU-1-Small-Region.svs")
    if path is None:
        phantom = restain.make_phantom(2967, 2220, scanner=restain.Scanner(noise=1.5, blur=0.6))
        return phantom.image, "phantom H&E tissue, 2220x2967 (no real data found; set RESTAIN_DATA)"
    with quietly(), restain.open_slide(path) as slide:
        pixels, _ = slide.read_region((0, 0), 0, slide.dimensions)
    return pixels, "CMU-1-Small-Region.svs (Aperio, H&E, 2220x2967, CC0)"


def quietly() -> warnings.catch_warnings:
    """A context without warnings: that a file claims an impossible pixel size, say, is no news here."""
    return warnings.catch_warnings(action="ignore")


def _data_file(name: str) -> Path | None:
    folder = data_folder()
    return folder / name if folder is not None and (folder / name).exists() else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str:
    git = ["git", "--no-optional-locks", "-C", str(ROOT)]
    try:
        name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name.strip() + (" and uncommitted changes" if changed else "")


# ---- timing ---------------------------------------------------------------------------------------------------------


class Timings(dict[str, list[float]]):
    """Seconds of each contender, one a round."""

    def median(self, name: str) -> float:
        """Median seconds."""
        return statistics.median(self[name])

    def ratio(self, slower: str, faster: str) -> float:
        """How many times longer `slower` took: the median over rounds of the quotient within a round.

        The neighbours of a shared machine slow both contenders of a round, and cancel.
        """
        return statistics.median(s / f for s, f in zip(self[slower], self[faster], strict=True))


def interleaved(
    contenders: dict[str, Callable[[], Any]],
    rounds: int,
    *,
    before: Callable[[], Any] | None = None,
    warm_up: bool = True,
) -> Timings:
    """Time the contenders in turn, `rounds` times over, each round beginning with another one.

    Args:
        contenders: what to call, by name.
        rounds: how often each is timed.
        before: called, untimed, before each timed call; restores what the contenders change.
        warm_up: call each once beforehand, untimed, so that caches are filled and code is compiled.
    """
    timings = Timings({name: [] for name in contenders})
    names = list(contenders)
    for turn in range(-1 if warm_up else 0, rounds):
        start = max(turn, 0) % len(names)
        for name in names[start:] + names[:start]:
            if before is not None:
                before()
            begin = time.perf_counter()
            contenders[name]()
            seconds = time.perf_counter() - begin
            if turn >= 0:
                timings[name].append(seconds)
    return timings


# ---- output ---------------------------------------------------------------------------------------------------------


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a header: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, ["-" * width for width in widths], *rows):
        first, *others = (
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *others]).rstrip())
    print()


def print_goal(what: str, value: float, limit: float, *, least: bool = False, unit: str = "") -> None:
    """Print whether a measured value keeps its goal: at most `limit`, or at least where `least`."""
    met = value >= limit if least else value <= limit
    sign = ">=" if least else "<="
    print(f"{'met   ' if met else 'MISSED'}  {what}: {value:.3g}{unit} (goal {sign} {limit:g}{unit})")


def save_strips(path: str, rows: Sequence[Sequence[tuple[str, Image]]]) -> None:
    """Write labelled pictures side by side, in rows, as one image file; all of one size."""
    from PIL import Image as Pillow
    from PIL import ImageDraw, ImageFont

    height, width = rows[0][0][1].shape[:2]
    gap, caption = 8, 26
    sheet = Pillow.new(
        "RGB", (len(rows[0]) * (width + gap) - gap, len(rows) * (height + caption + gap) - gap), (255, 255, 255)
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for i, row in enumerate(rows):
        for j, (label, pixels) in enumerate(row):
            x, y = j * (width + gap), i * (height + caption + gap)
            draw.text((x + 2, y + 3), label, fill=(0, 0, 0), font=font)
            sheet.paste(Pillow.fromarray(pixels), (x, y + caption))
    sheet.save(path)
    print(f"wrote {path}")
