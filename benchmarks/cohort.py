"""How fast cohorts are normalized, by one and by two workers, and what ten thousand queued slides cost a scheduler.

    python benchmarks/cohort.py                                  # 1,000 slides; 10,000 in the queue
    python benchmarks/cohort.py --slides 20 --queued 500         # in small

A simulated cohort of small pyramidal slides of phantom H&E tissue: a few different ones, under as many names as asked.
Every run reads, estimates, maps, writes and checks all of them, with manifest and quality sheet, and to the cohort's
own consensus. Threads are those of this process; on Dask, a scheduler and workers are processes of one thread each,
started beforehand and warmed up on a few slides. Seconds are of the whole cohort. With one core for two workers there
is nothing to be gained: the cores are printed.

The queue: a task of no work for each slide, with the paths and settings that a real one has, through the same runner.
The scheduler is a process of its own, whose memory is read before, while the queue is worked through, and after.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import CORES, print_goal, print_header, print_table

import restain
from restain.saved import load
from restain.slides.batch import BatchSettings, plan_outputs
from restain.slides.cluster import Cluster
from restain.slides.cohort import normalize_cohort
from restain.slides.cohort_work import Job, Work
from restain.slides.writer import write_array

DIFFERENT = 10
MIB = 2**20


def make_slides(folder: Path, count: int, side: int) -> None:
    """Slides of `side` × `side` pixels; a few are drawn, the others are links to them."""
    folder.mkdir()
    drawn = []
    for number in range(count):
        path = folder / f"slide-{number:05}.tif"
        if number < DIFFERENT:
            scanner = restain.Scanner(white=(243.0 - number, 241.0, 240.0 + number / 2), noise=1.0)
            write_array(path, restain.make_phantom(side, side, seed=number, scanner=scanner).image, mpp=(0.5, 0.5))
            drawn.append(path)
        else:
            os.link(drawn[number % DIFFERENT], path)


def seconds_of(folder: Path, workers: int | None, scheduler: str | None, count: int | None = None) -> float:
    """Normalize a cohort into a folder that is thrown away."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as out:
        pairs = plan_outputs(sorted(folder.iterdir())[:count], folder, Path(out))
        begin = time.perf_counter()
        result = normalize_cohort(
            pairs,
            Path(out),
            restain.Macenko(),
            load,
            BatchSettings(workers=workers),
            consensus=True,
            scheduler=scheduler,
        )
        seconds = time.perf_counter() - begin
        assert all(row.status == "done" for _, row in result.rows)
        assert len(result.rows) == len(pairs)
    return seconds


@contextmanager
def dask(workers: int, folder: Path) -> Iterator[tuple[str, int]]:
    """A scheduler and workers as processes of their own: the scheduler's file, and its process."""
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    file = folder / f"scheduler-{workers}.json"
    start = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    processes = [
        subprocess.Popen([*start, "--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(file)], **quiet)
    ]
    try:
        while not file.exists():
            time.sleep(0.05)
        address = json.loads(file.read_text())["address"]
        work = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
        processes += [subprocess.Popen(work, **quiet) for _ in range(workers)]
        from distributed import Client

        with Client(address, timeout=60) as client:
            client.wait_for_workers(workers)
        yield str(file), processes[0].pid
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()


def touch(job: Job, work: Work) -> int:
    """A slide's task without its work."""
    return len(job.source.name)


def queue(folder: Path, file: str, scheduler: int, count: int) -> tuple[float, float, float, float]:
    """Work through so many tasks; MiB of the scheduler before, at most, and after, and seconds."""
    import psutil

    process = psutil.Process(scheduler)
    levels = [process.memory_info().rss]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            levels.append(process.memory_info().rss)

    work = Work(BatchSettings(), saved=folder / "normalizer.safetensors", load=load, digest="0" * 64)
    jobs = [Job(folder / f"slide-{number:05}.tif", folder / "out" / f"{number:05}.tif") for number in range(count)]
    runner = Cluster(file, folder, print)
    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.perf_counter()
    found = sum(1 for _ in runner.run(touch, jobs, work, started=lambda job: None, moved=lambda parts: None))
    seconds = time.perf_counter() - begin
    over.set()
    watcher.join()
    runner.close()
    assert found == count
    return levels[0] / MIB, max(levels) / MIB, process.memory_info().rss / MIB, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", type=int, default=1000, help="in the cohort")
    parser.add_argument("--side", type=int, default=512, help="of a slide, pixels")
    parser.add_argument("--queued", type=int, default=10_000, help="slides in the scheduler's queue")
    options = parser.parse_args()
    if min(options.slides, options.side, options.queued) < 1:
        parser.error("all numbers must be 1 or more")
    home = Path(tempfile.mkdtemp(prefix="restain-cohort-"))
    try:
        folder = home / "in"
        make_slides(folder, options.slides, options.side)
        data = f"{options.slides} slides of {options.side} x {options.side} pixels, phantom H&E, {DIFFERENT} different"
        print_header(f"A cohort, to its own consensus; {CORES} cores", data)
        rows = []
        scaling = {}
        few = min(options.slides, 4)
        seconds_of(folder, 1, None, few)  # kernels are compiled
        for where in ("threads", "Dask workers"):
            found = []
            for workers in (1, 2):
                if where == "threads":
                    seconds = seconds_of(folder, workers, None)
                else:
                    with dask(workers, home) as (file, _):
                        seconds_of(folder, None, file, few)
                        seconds = seconds_of(folder, None, file)
                found.append(seconds)
                rows.append([f"{workers} {where}", f"{seconds:.1f}", f"{options.slides / seconds:.2f}"])
            scaling[where] = found[0] / found[1]
        print_table(["by", "s", "slides/s"], rows)
        for where, times in scaling.items():
            print(f"{where}: two are {times:.2f} times as fast as one")
        print()
        with dask(2, home) as (file, scheduler):
            queue(home, file, scheduler, 50)
            before, most, after, seconds = queue(home, file, scheduler, options.queued)
        header = ["scheduler's memory, MiB", "before", "at most", "after", "s"]
        print_table(header, [[f"{options.queued} queued", *(f"{n:.1f}" for n in (before, most, after, seconds))]])
        print_goal("what the queue adds to the scheduler", most - before, 50.0, unit=" MiB")
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
