"""A run's folder: what is refused, what is kept, and that no kill and no damage costs more than the last checkpoint."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from restain.errors import FormatError, InputError, OutputError, TrainingError, TrainingWarning
from restain.training.checkpoint import load_state
from restain.training.run_folder import RunFolder, is_run

SETTINGS = {"system": "staingan", "data": {"source": ["a", "b"], "crop": 256}, "rate": 2e-4}


def state(step: int) -> dict[str, Any]:
    return {"step": step, "weight": torch.full((50,), float(step))}


def names(run: RunFolder) -> list[str]:
    return sorted(path.name for path in run.checkpoints.iterdir())


def step_name(step: int) -> str:
    return f"step-{step:08d}.safetensors"


def damage(path: Path) -> None:
    contents = bytearray(path.read_bytes())
    contents[-1] ^= 1
    path.write_bytes(contents)


# ---- settings ---------------------------------------------------------------------------------------------------


def test_settings_are_a_recipe(tmp_path: Path) -> None:
    settings = {
        "rate": np.float32(0.5),
        "betas": (0.5, 0.999),
        "out": Path("x") / "y",
        "ema": None,
        "deep": {"none": None, "table": {"flag": True}, "tables": [{"a": 1}, {"a": None, "b": 2}]},
        "text": 'quotes " and \\ and\nlines, ä',
        "big": 2**70,
        "inf": float("inf"),
    }
    with RunFolder.create(tmp_path / "run", settings) as run:
        text = (run.path / "settings.toml").read_text()
    expected = {
        "rate": 0.5,
        "betas": [0.5, 0.999],
        "out": str(Path("x") / "y"),
        "deep": {"table": {"flag": True}, "tables": [{"a": 1}, {"b": 2}]},
        "text": 'quotes " and \\ and\nlines, ä',
        "big": 2**70,
        "inf": float("inf"),
    }
    assert tomllib.loads(text) == run.settings == expected
    assert "# Not set (None): ema, deep.none, deep.tables[1].a." in text.splitlines()
    with RunFolder.open(tmp_path / "run") as again:
        assert again.settings == expected
        with RunFolder.create(tmp_path / "second", again.settings) as second:  # given back
            assert second.settings == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"a": {"b": object()}}, r"setting a\.b is a object"),
        ({"a": [1, None]}, "setting a holds a None"),
        ({"a": {1: 2}}, "setting a has the key 1"),
        ({"a": torch.ones(2)}, "setting a is a Tensor"),
    ],
)
def test_settings_that_toml_cannot_hold_leave_nothing(tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RunFolder.create(tmp_path / "run", settings)
    assert not (tmp_path / "run").exists()


def test_damaged_settings(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, SETTINGS).close()
    (tmp_path / "settings.toml").write_text("a = [")
    with pytest.raises(FormatError, match="cannot be read"):
        RunFolder.open(tmp_path)
    (tmp_path / "settings.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(FormatError, match="cannot be read"):
        RunFolder.open(tmp_path)


def test_every_start_is_recorded(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, SETTINGS) as run:
        run.record_start(command=["restain", "train", "staingan"], device="cpu", precision="bf16")
    with RunFolder.open(tmp_path) as run:
        run.record_start(command="restain train --resume", device="cuda:0")
    starts = json.loads((tmp_path / "environment.json").read_text())["starts"]
    assert [start["device"] for start in starts] == ["cpu", "cuda:0"]
    assert starts[0]["command"] == ["restain", "train", "staingan"]
    assert starts[0]["precision"] == "bf16"
    assert starts[0]["versions"]["torch"] == torch.__version__
    (tmp_path / "environment.json").write_text("{")
    with RunFolder.open(tmp_path) as run:
        run.record_start(command="restain train --resume", device="cpu")
    assert len(json.loads((tmp_path / "environment.json").read_text())["starts"]) == 1


# ---- what is refused --------------------------------------------------------------------------------------------


def test_a_run_is_not_started_over_by_accident(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", SETTINGS) as run:
        run.save_checkpoint(1, state(1))
    with pytest.raises(OutputError, match="--resume continues it, --overwrite starts it anew"):
        RunFolder.create(tmp_path / "run", SETTINGS)
    assert run.checkpoints.joinpath(step_name(1)).exists()


def test_overwriting_removes_the_run_and_nothing_else(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, SETTINGS) as run:
        run.record_start(command="x", device="cpu")
        run.save_checkpoint(1, state(1), score=1)
        run.save_picture(1, Image.new("RGB", (4, 4)))
        for path in (run.metrics, run.curves, run.normalizer):
            path.write_text("old")
        run.tensorboard.mkdir()
        (run.tensorboard / "events").write_text("old")
    (tmp_path / "notes.md").write_text("mine")
    (tmp_path / "pictures" / "figure.png").write_text("mine")
    with RunFolder.create(tmp_path, {"rate": 1.0}, overwrite=True) as run:
        assert run.latest_checkpoint() is None
        assert run.best_score is None
    left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert left == [".restain-run.lock", "notes.md", "pictures/figure.png", "settings.toml"]
    assert RunFolder.open(tmp_path, lock=False).settings == {"rate": 1.0}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["photo.jpg", "settings.toml", "checkpoints/step-00000001.safetensors"])
def test_a_folder_of_something_else_is_refused(tmp_path: Path, overwrite: bool, name: str) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "settings.toml").write_text("debug = true\n")
    (tmp_path / name).write_text("mine = 1")
    with pytest.raises(OutputError, match="not empty and no training run"):
        RunFolder.create(tmp_path, SETTINGS, overwrite=overwrite)
    assert (tmp_path / name).read_text() == "mine = 1"
    with pytest.raises(FormatError, match="is no training run"):
        RunFolder.open(tmp_path)


def test_files_and_missing_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OutputError, match="name a folder for the run"):
            RunFolder.create(path, SETTINGS)
    with pytest.raises(FormatError, match="is no training run"):
        RunFolder.open(tmp_path / "none")
    with pytest.raises(InputError, match="at least one checkpoint"):
        RunFolder.create(tmp_path / "run", SETTINGS, keep=0)


def test_an_empty_folder_and_the_remains_of_a_killed_start_will_do(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".restain-run.lock").write_text("")
    (tmp_path / "run" / ".settings.toml.x.part").write_text("half")
    RunFolder.create(tmp_path / "run", SETTINGS).close()
    assert sorted(p.name for p in (tmp_path / "run").iterdir() if p.is_file()) == [".restain-run.lock", "settings.toml"]


def test_a_copied_run_is_a_run(tmp_path: Path) -> None:
    """Though hidden files are left behind by some ways to copy."""
    RunFolder.create(tmp_path, SETTINGS).close()
    (tmp_path / ".restain-run.lock").unlink()
    assert is_run(tmp_path)
    RunFolder.open(tmp_path).close()


# ---- one process at a time --------------------------------------------------------------------------------------

HOLD = """
import sys, time
from restain.training.run_folder import RunFolder
run = RunFolder.open(sys.argv[1])
print("held", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX does")
def test_the_lock_of_another_process_holds_until_it_dies(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, SETTINGS).close()
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        for take in (
            lambda: RunFolder.open(tmp_path),
            lambda: RunFolder.create(tmp_path, SETTINGS, overwrite=True),
        ):
            with pytest.raises(OutputError, match=f"is being trained into by process {other.pid}"):
                take()
        assert RunFolder.open(tmp_path, lock=False).settings == SETTINGS  # who only reads is let in
    finally:
        other.kill()
        other.communicate()
    RunFolder.open(tmp_path).close()


def test_the_lock_holds_within_a_process_and_is_given_back(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, SETTINGS) as run, pytest.raises(OutputError, match=f"process {os.getpid()}"):
        RunFolder.open(tmp_path)
    run.close()  # twice does no harm
    with RunFolder.open(tmp_path), pytest.raises(OutputError, match="is being trained into"):
        RunFolder.open(tmp_path)


def test_a_failed_start_gives_the_lock_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_run: RunFolder) -> None:
        raise OSError("no")

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "_remove_results", fail)
        with pytest.raises(OSError, match="no"):
            RunFolder.create(tmp_path, SETTINGS)
    RunFolder.create(tmp_path, SETTINGS).close()


def wait(connection: Any) -> None:
    connection.recv()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_forked_workers_do_not_keep_the_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    run = RunFolder.create(tmp_path, SETTINGS)
    worker = context.Process(target=wait, args=(theirs,))
    worker.start()
    try:
        with pytest.raises(OutputError):
            RunFolder.open(tmp_path)
        run.close()
        RunFolder.open(tmp_path).close()  # while the worker lives
    finally:
        mine.send(None)
        worker.join()


# ---- checkpoints ------------------------------------------------------------------------------------------------


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    scores = [1.0, 3.0, 2.0, None, float("nan"), float("inf"), 3.0]
    with RunFolder.create(tmp_path, SETTINGS) as run:
        assert run.latest_checkpoint() is None
        for step, score in enumerate(scores, start=1):
            path = run.save_checkpoint(step * 1000, state(step * 1000), score=score)
            assert path == run.checkpoints / step_name(step * 1000)
        assert names(run) == ["best.safetensors", step_name(6000), step_name(7000)]
        assert load_state(run.best)["step"] == 2000
        assert run.best_score == 3.0
    with RunFolder.open(tmp_path) as run:  # a new process knows the best score, too
        run.save_checkpoint(8000, state(8000), score=2.9)
        assert load_state(run.best)["step"] == 2000
        run.save_checkpoint(9000, state(9000), score=3.1)
        assert load_state(run.best)["step"] == 9000
        latest = run.latest_checkpoint()
        assert latest is not None
        assert latest.step == latest.state["step"] == 9000
        assert torch.equal(latest.state["weight"], state(9000)["weight"])


@pytest.mark.parametrize("keep", [1, 3])
def test_as_many_are_kept_as_asked_for(tmp_path: Path, keep: int) -> None:
    with RunFolder.create(tmp_path, SETTINGS, keep=keep) as run:
        for step in range(1, 6):
            run.save_checkpoint(step, state(step))
        assert names(run) == [step_name(step) for step in range(6 - keep, 6)]


def test_steps_are_numbers_and_not_text(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, SETTINGS) as run:
        for step in (99_999_998, 99_999_999, 100_000_000):
            run.save_checkpoint(step, state(step))
        assert names(run) == ["step-100000000.safetensors", "step-99999999.safetensors"]
        latest = run.latest_checkpoint()
        assert latest is not None
        assert latest.step == 100_000_000


def test_a_damaged_newest_is_reported_and_passed_over(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, SETTINGS) as run:
        for step in (1, 2):
            run.save_checkpoint(step, state(step))
        damage(run.checkpoints / step_name(2))
        with pytest.warns(TrainingWarning, match=r"step-00000002\.safetensors is damaged.*goes on from .* \(step 1\)"):
            latest = run.latest_checkpoint()
        assert latest is not None
        assert latest.step == 1
        run.save_checkpoint(2, state(2))  # written again
        assert load_state(run.checkpoints / step_name(2))["step"] == 2


def test_the_only_good_one_is_not_removed(tmp_path: Path) -> None:
    """Going on from step 1 with step 3 damaged, step 2 is written: the damaged one must not count as newer."""
    with RunFolder.create(tmp_path, SETTINGS) as run:
        for step in (1, 3):
            run.save_checkpoint(step, state(step))
        damage(run.checkpoints / step_name(3))
        run.save_checkpoint(2, state(2))
        assert names(run) == [step_name(1), step_name(2)]


def test_the_best_is_the_last_resort(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, SETTINGS) as run:
        for step in (1, 2, 3):
            run.save_checkpoint(step, state(step), score=-step)
        for step in (2, 3):
            damage(run.checkpoints / step_name(step))
        with pytest.warns(TrainingWarning, match=r"goes on from best\.safetensors \(step 1\)"):
            latest = run.latest_checkpoint()
        assert latest is not None
        assert latest.step == 1
        damage(run.best)
        with pytest.raises(TrainingError, match=r"no checkpoint of .* can be read.*--overwrite starts anew"):
            run.latest_checkpoint()
        assert run.best_score == -1  # its head is whole


def test_half_written_files_do_not_count_and_are_removed(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, SETTINGS) as run:
        run.save_checkpoint(1, state(1))
        (run.checkpoints / f".{step_name(2)}.abc.part").write_bytes(b"half")
        (run.checkpoints / f"{step_name(3)}.part").write_bytes(b"not ours")
        latest = run.latest_checkpoint()
        assert latest is not None
        assert latest.step == 1
    with RunFolder.open(tmp_path, lock=False) as run:
        assert len(names(run)) == 3  # who only reads removes nothing
    with RunFolder.open(tmp_path) as run:
        assert names(run) == [step_name(1), f"{step_name(3)}.part"]


def test_a_checkpoint_that_cannot_be_written_leaves_all_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    import safetensors.torch

    def full(_tensors: Any, path: Path, **_options: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with RunFolder.create(tmp_path, SETTINGS) as run:
        for step in (1, 2):
            run.save_checkpoint(step, state(step), score=step)
        with monkeypatch.context() as patch:
            patch.setattr(safetensors.torch, "save_file", full)
            with pytest.raises(OutputError, match=r"cannot write .*step-00000003\.safetensors: No space left"):
                run.save_checkpoint(3, state(3), score=3)
        assert names(run) == ["best.safetensors", step_name(1), step_name(2)]
        latest = run.latest_checkpoint()
        assert latest is not None
        assert latest.step == 2


def test_the_best_is_copied_where_files_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    with RunFolder.create(tmp_path, SETTINGS) as run:
        for step in (1, 2, 3):
            run.save_checkpoint(step, state(step), score=-step)
        assert load_state(run.best)["step"] == 1
        assert names(run) == ["best.safetensors", step_name(2), step_name(3)]


def test_pictures(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, SETTINGS) as run:
        for color in ("red", "blue"):  # after a resume a step's picture is made again
            path = run.save_picture(1000, Image.new("RGB", (5, 4), color))
    assert path == tmp_path / "pictures" / "step-00001000.png"
    assert Image.open(path).getpixel((0, 0)) == (0, 0, 255)


# ---- killed -----------------------------------------------------------------------------------------------------

TRAIN = """
import sys
import torch
from restain.training.metrics_log import MetricsLog
from restain.training.run_folder import RunFolder

with RunFolder.open(sys.argv[1]) as run:
    latest = run.latest_checkpoint()
    step = latest.step if latest else 0
    log = MetricsLog(run.metrics, resume_step=step)
    print("goes on from", step, flush=True)
    while True:
        step += 1
        log.write(step, epoch=step / 10, seconds=0, losses={"l1": 1 / step}, rates={})
        run.save_checkpoint(step, {"step": step, "weight": torch.full((300_000,), float(step))}, score=step % 7)
        print(step, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX does")
def test_kills_at_any_moment_cost_no_finished_checkpoint(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, SETTINGS).close()
    rng = np.random.default_rng(0)
    done = 0
    for _ in range(4):
        command = [sys.executable, "-c", textwrap.dedent(TRAIN), str(tmp_path)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert child.stdout is not None
        first = child.stdout.readline()
        seen = [child.stdout.readline() for _ in range(2)]
        time.sleep(float(rng.uniform(0, 0.1)))  # into the middle of whatever it does
        child.send_signal(signal.SIGKILL)
        rest, errors = child.communicate()
        assert child.returncode == -signal.SIGKILL, errors
        assert int(first.split()[-1]) >= done
        lines = [line for line in [*seen, *rest.splitlines(keepends=True)] if line.endswith("\n")]
        done = int(lines[-1])

        run = RunFolder.open(tmp_path, lock=False)
        latest = run.latest_checkpoint()  # a TrainingWarning would be an error here
        assert latest is not None
        assert latest.step in (done, done + 1)  # killed between the rename and the word of it
        assert latest.state["step"] == latest.step
        assert (latest.state["weight"] == latest.step).all()
        assert load_state(run.best)["step"] <= latest.step
    with RunFolder.open(tmp_path) as run:
        assert not list(tmp_path.rglob("*.part"))
        assert 2 <= len([name for name in names(run) if name.startswith("step")]) <= 3
    logged = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert logged == list(range(1, len(logged) + 1))
    assert len(logged) >= done


MOMENTS = [("fsync", 0, 2), ("replace", 0, 2), ("link", 0, 3), ("replace", 1, 3), ("unlink", 0, 3), ("unlink", 1, 3)]
"""The call of the system before which a process dies, how many of it are let through, the checkpoint to go on from."""

DIE = """
import os, signal, sys
import torch
from restain.training.run_folder import RunFolder

def save(path, moment, count):
    run = RunFolder.open(path)
    original = getattr(os, moment)
    def die(*arguments, **options):
        nonlocal count
        count -= 1
        if count < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)
    setattr(os, moment, die)
    for step in (3, 4):
        run.save_checkpoint(step, {"step": step, "weight": torch.full((50,), float(step))}, score=step)

for path, moment, count in zip(*[iter(sys.argv[1:])] * 3):
    if not os.fork():
        save(path, moment, int(count))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks and kills as POSIX does")
def test_killed_at_a_given_moment(tmp_path: Path) -> None:
    arguments = []
    for moment, count, _ in MOMENTS:
        path = tmp_path / f"{moment}{count}"
        arguments += [str(path), moment, str(count)]
        with RunFolder.create(path, SETTINGS) as run:
            for step in (1, 2):
                run.save_checkpoint(step, state(step), score=step)
    done = subprocess.run([sys.executable, "-c", DIE, *arguments], check=True, capture_output=True, text=True)
    assert done.stdout.split() == [str(-signal.SIGKILL)] * len(MOMENTS)
    for moment, count, expected in MOMENTS:
        with RunFolder.open(tmp_path / f"{moment}{count}") as run:
            latest = run.latest_checkpoint()
            assert latest is not None
            assert latest.step == latest.state["step"] == expected, moment
            assert load_state(run.best)["step"] in (2, 3)
            assert not list(run.path.rglob("*.part"))
