"""Cohorts on a real Dask cluster of separate processes: the same bytes, whoever dies, and little in the scheduler."""

import dataclasses
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from restain.errors import InputError, MissingExtraError, OutputError
from restain.methods.macenko import Macenko
from restain.phantom import make_phantom
from restain.saved import load
from restain.slides import cluster, cohort
from restain.slides.batch import BatchSettings, Failure, plan_outputs
from restain.slides.cluster import Cluster
from restain.slides.codecs import PyramidSettings
from restain.slides.cohort import CohortResult, normalize_cohort
from restain.slides.cohort_work import LOCK, Done, Job, Work, count_one, measure_one, normalize_one, plan_one
from restain.slides.folders import checksum
from restain.slides.manifest import read_rows
from restain.slides.sample import sample_slide
from restain.slides.writer import write_array

from ..running import Run

distributed = pytest.importorskip("distributed")

SETTINGS = BatchSettings(pyramid=PyramidSettings(tile=64), workers=1)


@pytest.fixture(scope="module")
def local() -> Iterator[Any]:
    """A scheduler here, and two worker processes of one thread, which a nanny starts again when they die."""
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1, "distributed.comm.timeouts.connect": "60s"}),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=50,
        ) as made,
    ):
        yield made


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide, four images, and one that cannot be read."""
    path = tmp_path_factory.mktemp("cohort")
    write_array(path / "slide.tif", make_phantom(700, 900, seed=9).image, settings=PyramidSettings(tile=64))
    for number in range(4):
        Image.fromarray(make_phantom(120, 160, seed=number).image).save(path / f"{number}.png")
    (path / "bad.svs").write_text("words")
    return path


def normalized(folder: Path, out: Path, normalizer: Any = None, **options: Any) -> CohortResult:
    out.mkdir(exist_ok=True)
    pairs = plan_outputs(sorted(folder.iterdir()), folder, out)
    return normalize_cohort(pairs, out, normalizer or Macenko().fit("he"), load, SETTINGS, **options)


def outputs(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in out.iterdir() if p.is_file() and p.name not in cohort.OWN_FILES}


def entered(out: Path) -> list[Any]:
    """The rows, without what differs from run to run."""
    return [dataclasses.replace(row, seconds=0.0) for row in read_rows(out / "manifest.csv")]


def workers_of(made: Any) -> dict[str, int]:
    """Process by worker."""
    return {name: nanny.pid for name, nanny in made.workers.items()}


@pytest.fixture(autouse=True)
def complete(request: pytest.FixtureRequest) -> None:
    """What the test before killed is there again."""
    if "local" in request.fixturenames:
        request.getfixturevalue("local").wait_for_workers(2, timeout=120)


@pytest.fixture
def runner(local: Any, tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(local.scheduler_address, tmp_path, print)
    yield made
    made.close()


def quiet(job: Job) -> None:
    """Nobody wants to know."""


def ran(runner: Cluster, function: Any, jobs: list[Job], work: Work) -> dict[str, Any]:
    results = runner.run(function, jobs, work, started=quiet, moved=lambda parts: None)
    return {job.source.name: result for job, result in results}


# ---- the same as here -------------------------------------------------------------------------------------------


def test_the_same_bytes_as_on_one_machine(local: Any, slides: Path, tmp_path: Path) -> None:
    here = normalized(slides, tmp_path / "here", Macenko(), consensus=True)
    there = normalized(slides, tmp_path / "there", Macenko(), consensus=True, scheduler=local.scheduler_address)
    assert there.normalizer == here.normalizer
    assert len(outputs(tmp_path / "here")) == 5
    assert outputs(tmp_path / "there") == outputs(tmp_path / "here")
    assert entered(tmp_path / "there") == entered(tmp_path / "here")
    assert (tmp_path / "there" / "quality.html").is_file()
    again = normalized(slides, tmp_path / "there", Macenko(), consensus=True, scheduler=local.scheduler_address)
    assert (again.kept, [row.status for _, row in again.rows]) == (5, ["failed"])


def test_one_estimate_for_a_folder(local: Any, slides: Path, tmp_path: Path, fitted: Macenko) -> None:
    together = dataclasses.replace(SETTINGS, estimate="folder")
    for name, scheduler in (("here", None), ("there", local.scheduler_address)):
        (tmp_path / name).mkdir()
        pairs = plan_outputs([slides / "0.png", slides / "1.png"], slides, tmp_path / name)
        normalize_cohort(pairs, tmp_path / name, fitted, load, together, scheduler=scheduler)
    assert outputs(tmp_path / "there") == outputs(tmp_path / "here")
    first, second = entered(tmp_path / "there")
    assert first.appearance == second.appearance


def test_the_command(local: Any, slides: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With relative paths, which mean something else to a worker."""
    monkeypatch.chdir(tmp_path)
    os.symlink(slides, "in")
    outcome = run("normalize", "in", "out", "--scheduler", local.scheduler_address)
    assert outcome.code == 1
    assert outcome.out == "5 files normalized by macenko, 1 failed\n"
    assert outcome.err.startswith("restain: in/bad.svs: ")
    assert outcome.err.count("\n") == 1
    normalized(slides, tmp_path / "here")
    # Of other settings for slides, but the same for images.
    assert outputs(tmp_path / "out")["0.png"] == outputs(tmp_path / "here")["0.png"]


def test_a_sample_that_is_counted_in_parts_is_the_sample(slides: Path, tmp_path: Path, fitted: Macenko) -> None:
    job = Job(slides / "slide.tif", tmp_path / "out.tif")
    work = Work(dataclasses.replace(SETTINGS, max_pixels=3 * 512**2), fitted)
    plan = plan_one(job, work)
    whole = measure_one(job, work)
    for of in (1, 2, 3, 16):
        parts = [count_one(job, work, plan, part, of) for part in range(of)]
        again = measure_one(job, work, plan, parts)
        assert again.digest() == whole.digest()  # type: ignore[union-attr]
        assert sum(part.pixels for part in parts) == sample_slide(job.source, max_pixels=3 * 512**2).pixels  # type: ignore[union-attr]


def test_work_is_split_within_few_slides(
    local: Any, slides: Path, tmp_path: Path, fitted: Macenko, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More threads than slides: the sample is counted in parts, and nothing in the output shows it."""
    (tmp_path / "one").mkdir()
    os.link(slides / "slide.tif", tmp_path / "one" / "slide.tif")
    os.link(slides / "bad.svs", tmp_path / "one" / "bad.svs")
    normalized(tmp_path / "one", tmp_path / "here", fitted)
    sent = []
    real = distributed.Client.submit

    def submit(self: Any, call: Any, function: Any, *arguments: Any, **options: Any) -> Any:
        sent.append(function.__name__)
        return real(self, call, function, *arguments, **options)

    monkeypatch.setattr(distributed.Client, "submit", submit)
    monkeypatch.setattr(distributed.Client, "nthreads", lambda self: {"a": 4, "b": 4})
    normalized(tmp_path / "one", tmp_path / "there", fitted, scheduler=local.scheduler_address)
    assert sent.count("count_one") == 8
    assert outputs(tmp_path / "there") == outputs(tmp_path / "here")
    assert entered(tmp_path / "there") == entered(tmp_path / "here")


def test_little_travels(slides: Path, tmp_path: Path, fitted: Macenko) -> None:
    """Of a slide of 630,000 pixels: paths and settings there, numbers back."""
    fitted.save(tmp_path / "normalizer.safetensors")
    job = Job(slides / "slide.tif", tmp_path / "out.tif")
    work = Work(
        SETTINGS, None, tmp_path / "normalizer.safetensors", load, checksum(tmp_path / "normalizer.safetensors")
    )
    assert len(pickle.dumps((normalize_one, job, work))) < 3000
    done = normalize_one(job, work)
    assert isinstance(done, Done)
    assert len(pickle.dumps(done)) < 3000


# ---- back-pressure ----------------------------------------------------------------------------------------------


def test_the_scheduler_knows_a_few_tasks_at_a_time(local: Any, runner: Cluster, tmp_path: Path) -> None:
    jobs = [Job(Path(f"/{number}"), tmp_path / str(number)) for number in range(120)]
    most, started = 0, []

    def touch(job: Job, work: Work) -> str:  # pickled whole, as it is nobody's module's
        return job.source.name

    begun = runner.run(touch, jobs, Work(SETTINGS), started=started.append, moved=lambda parts: None)
    for count, (job, result) in enumerate(begun, start=1):
        assert result == job.source.name
        most = max(most, len(local.scheduler.tasks))
        assert len(started) - count < cluster.AHEAD * 2
    assert len(started) == 120
    # Two threads: what is under way, and what was done and is not yet forgotten.
    assert most <= 2 * cluster.AHEAD * 2


# ---- deaths -----------------------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_is_survived(local: Any, tmp_path: Path, fitted: Macenko) -> None:
    """`kill -9` while every worker is in the midst of a slide."""
    (tmp_path / "in").mkdir()
    for number in range(6):
        Image.fromarray(make_phantom(300, 400, seed=number).image).save(tmp_path / "in" / f"{number}.png")
    killed = []

    def kill() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            busy = [state for state in local.scheduler.workers.values() if state.processing]
            if busy:
                name = next(name for name, nanny in local.workers.items() if nanny.worker_address == busy[0].address)
                killed.append(local.workers[name].pid)
                os.kill(killed[0], signal.SIGKILL)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    result = normalized(tmp_path / "in", tmp_path / "out", fitted, scheduler=local.scheduler_address)
    thread.join()
    assert len(killed) == 1
    assert [row.status for _, row in result.rows] == ["done"] * 6
    normalized(tmp_path / "in", tmp_path / "here", fitted)
    assert {name: data for name, data in outputs(tmp_path / "out").items() if not name.startswith(".")} == outputs(
        tmp_path / "here"
    )


def test_a_slide_that_kills_its_workers_is_reported_and_the_rest_goes_on(runner: Cluster, tmp_path: Path) -> None:
    def kills(job: Job, work: Work) -> str:
        import os
        import signal
        import time

        if "poison" in job.source.name:
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)
        return job.source.name

    names = ["a", "b", "poison", "c", "d", "e"]
    found = ran(runner, kills, [Job(Path(f"/{name}"), tmp_path / name) for name in names], Work(SETTINGS))
    assert found.keys() == set(names)
    assert isinstance(found["poison"], Failure)
    assert "every worker that took it died" in found["poison"].error
    assert {name for name, result in found.items() if result == name} == set(names) - {"poison"}


# ---- what is refused --------------------------------------------------------------------------------------------


def test_no_scheduler(slides: Path, tmp_path: Path, run: Run) -> None:
    with pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9 .*start one"):
        Cluster("tcp://127.0.0.1:9", tmp_path, print, timeout=0.5)
    outcome = run("normalize", slides, tmp_path / "out", "--scheduler", "nonsense://x")
    assert outcome.code == 2
    assert outcome.err.startswith("restain: no Dask scheduler answers at nonsense://x")
    assert outcome.err.count("\n") == 1


def test_a_folder_that_workers_do_not_see(local: Any, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"tcp://.* does not see .*gone; name a folder that all machines share"):
        Cluster(local.scheduler_address, tmp_path / "gone", print)


def test_workers_of_another_version(local: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "__version__", "9.9")
    with pytest.raises(InputError, match=r"has restain .*, this process 9\.9; results might differ"):
        Cluster(local.scheduler_address, tmp_path, print)


def test_a_worker_that_comes_later_looks_at_itself(runner: Cluster, slides: Path, tmp_path: Path) -> None:
    """None was there to be asked when the run began; the first task tells, and ends the run."""
    job = Job(slides / "0.png", tmp_path / "0.png")
    (tmp_path / LOCK).write_text("this run")
    sees = Work(SETTINGS, folder=tmp_path, run="this run")
    assert not isinstance(ran(runner, measure_one, [job], sees)["0.png"], Failure)
    for work, words in (
        (dataclasses.replace(sees, version="9.9"), r"a worker on \S+ has restain \S+, this run 9\.9; start the same"),
        (dataclasses.replace(sees, folder=tmp_path / "gone"), r"a worker on \S+: the cohort's folder .*gone is gone"),
        (dataclasses.replace(sees, run="an earlier run"), "another run writes in"),
    ):
        with pytest.raises(InputError, match=words):
            ran(runner, normalize_one, [job], work)
    assert not (tmp_path / "0.png").exists()
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("words", ["{}", '{"address": 5}', "[]", "5", "no JSON", ""])
def test_a_scheduler_file_of_something_else(words: str, tmp_path: Path) -> None:
    (tmp_path / "scheduler.json").write_text(words)
    with pytest.raises(InputError, match=r"no Dask scheduler answers at .*scheduler\.json") as error:
        Cluster(str(tmp_path / "scheduler.json"), tmp_path, print, timeout=0.5)
    assert "\n" not in str(error.value)


def test_without_dask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'restain\[cluster\]'"):
        Cluster("tcp://127.0.0.1:9", tmp_path, print)


@pytest.mark.parametrize("option", [["--scheduler", "tcp://127.0.0.1:9"], ["--target-consensus"]])
def test_options_for_several_slides(option: list[str], slides: Path, tmp_path: Path, run: Run) -> None:
    outcome = run("normalize", slides / "0.png", tmp_path / "o.png", *option)
    assert outcome.code == 2
    assert outcome.err == f"restain: {option[0]} is for several slides; {slides / '0.png'} is one\n"


@pytest.mark.parametrize("option", [["--target", "he"], ["--normalizer", "n.safetensors"]])
def test_a_consensus_is_no_other_reference(option: list[str], slides: Path, tmp_path: Path, run: Run) -> None:
    outcome = run("normalize", slides, tmp_path / "out", "--target-consensus", *option)
    assert outcome.code == 2
    assert "--target-consensus finds the reference itself" in outcome.err
    assert not (tmp_path / "out").exists()


# ---- a cluster whose scheduler goes away ------------------------------------------------------------------------


def test_a_scheduler_that_goes_away_is_one_clear_line(slides: Path, tmp_path: Path) -> None:
    """Scheduler and worker as a user starts them; then the scheduler is killed, and the command ends."""
    home = str(tmp_path)
    start = [
        sys.executable,
        "-m",
        "distributed.cli.dask_scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--dashboard-address",
        "127.0.0.1:0",
    ]
    scheduler = subprocess.Popen(
        [*start, "--scheduler-file", f"{home}/scheduler.json"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    worker = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "distributed.cli.dask_worker",
            "--scheduler-file",
            f"{home}/scheduler.json",
            "--nthreads",
            "1",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=home,
    )
    try:
        until = time.monotonic() + 60
        while not Path(home, "scheduler.json").exists() and time.monotonic() < until:
            time.sleep(0.05)

        def slow(job: Job, work: Work) -> str:
            import time

            time.sleep(0.2)
            return job.source.name

        runner = Cluster(f"{home}/scheduler.json", tmp_path, print)
        jobs = [Job(Path(f"/{number}"), tmp_path / str(number)) for number in range(100)]
        results = runner.run(slow, jobs, Work(SETTINGS), started=quiet, moved=lambda parts: None)
        next(results)
        scheduler.kill()
        with pytest.raises(InputError, match=r"the scheduler at .* is gone; what is finished is kept"):
            list(results)
        runner.close()
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()


def test_the_command_line_is_light() -> None:
    """Neither it nor a cohort on one machine needs Dask."""
    code = (
        "import sys, restain.cli, restain.slides.cohort\n"
        "print([name for name in ('distributed', 'dask', 'torch', 'zarr', 'wsidicom') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
