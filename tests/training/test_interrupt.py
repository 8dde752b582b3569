"""Signals: the first is held back and obeyed between two updates, a later one ends at once."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import restain
from restain.systems import SYSTEMS
from restain.training.interrupt import ECHO, Interrupt
from restain.training.loop import train

from .small import POSIX, finish, recipe_for, start, state_of, steps_of, values_for

pytestmark = pytest.mark.skipif(not POSIX, reason="signals as POSIX has them")


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Python's own handlers, whatever ran before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_is_held_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Interrupt() as interrupt:
        assert interrupt.signal == 0
        signal.raise_signal(number)
        assert interrupt.signal == number
        signal.raise_signal(signal.SIGINT)  # at once: a launcher's echo
        assert interrupt.signal == number
    assert signal.getsignal(number) is before


def test_a_later_one_is_obeyed() -> None:
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(ECHO + 0.05)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert interrupt.signal == signal.SIGTERM
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_was_ignored_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup and shells in the background do
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.signal == 0
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_other_threads_do_without() -> None:
    seen = []

    def run() -> None:
        with Interrupt() as interrupt:
            seen.append(interrupt.signal)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [0]


@pytest.mark.usefixtures("quick")
def test_an_interrupt_at_the_last_update_is_a_success(
    tissue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = SYSTEMS["stainnet"].update

    def update(*given: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return original(*given)

    monkeypatch.setattr(SYSTEMS["stainnet"], "update", update)
    result = train(recipe_for("stainnet", tissue, training={"max_steps": 1}), tmp_path / "run", quiet=True)
    assert steps_of(result.run) == [1]
    assert restain.load(result.run).provenance_["training"]["steps"] == 1


SLOW = """
import itertools, os, pathlib, time
from restain.systems import SYSTEMS
def slow(update):
    count = itertools.count(1)
    def wait(*given):
        pathlib.Path(os.environ["WHERE"]).write_text(str(next(count)))
        time.sleep(float(os.environ["SECONDS"]))
        return update(*given)
    return wait
SYSTEMS["stainnet"].update = slow(SYSTEMS["stainnet"].update)
"""
"""Before a command: says which update has begun, and makes updates last."""

SLOW_DECODING = """
from restain.training.cutting import Cutter
cut = Cutter.__getitem__
Cutter.__getitem__ = lambda self, request: (time.sleep(0.6), cut(self, request))[1]
"""
"""Before a command: makes it wait for its decoding processes most of the time."""


def command(tissue: Path, run: Path, *more: object) -> list[object]:
    data, config = (values_for("stainnet", tissue)[table] for table in ("data", "config"))
    options = [f"--source={data['source'][0]}", f"--target={data['target'][0]}", "--pairs=names", "--max-steps=40"]
    options += [f"--set=config.{name}={value}" for name, value in config.items() if name != "epochs"]
    return ["train", "stainnet", *options, "--epochs=100", "-o", run, *more]


def wait_for(where: Path, number: int) -> None:
    deadline = time.monotonic() + 240
    while not (where.exists() and where.read_text() and int(where.read_text()) >= number):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_stops_with_a_checkpoint(number: signal.Signals, tissue: Path, tmp_path: Path) -> None:
    where, said = tmp_path / "where", tmp_path / "said.txt"
    environment = {"WHERE": str(where), "SECONDS": "0.3"}
    child = start(command(tissue, tmp_path / "run", "--workers=0"), said, environment=environment, before=SLOW)
    wait_for(where, 3)
    assert child.pid is not None
    os.kill(child.pid, number)
    assert finish(child) == [130]
    step = state_of(tmp_path / "run")["step"]
    assert 3 <= step < 40
    text = said.read_text()
    assert f"interrupted; --resume goes on from step {step}" in text
    assert "Traceback" not in text


def test_a_second_signal_ends_a_process_at_once(tissue: Path, tmp_path: Path) -> None:
    where, said = tmp_path / "where", tmp_path / "said.txt"
    environment = {"WHERE": str(where), "SECONDS": "600"}
    child = start(command(tissue, tmp_path / "run", "--workers=0"), said, environment=environment, before=SLOW)
    wait_for(where, 1)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGTERM)
    time.sleep(ECHO + 0.3)
    assert child.is_alive()  # it is in the middle of an update
    os.kill(child.pid, signal.SIGTERM)
    assert finish(child) == [-signal.SIGTERM]
    assert not steps_of(tmp_path / "run")
    assert "Traceback" not in said.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_decoding_processes_outlive_a_signal_to_them_all(number: signal.Signals, tissue: Path, tmp_path: Path) -> None:
    """A terminal's Ctrl-C and a cluster's SIGTERM go to every process; batches must come until the last update."""
    where, said = tmp_path / "where", tmp_path / "said.txt"
    environment = {"WHERE": str(where), "SECONDS": "0"}
    before = "os.setsid()\n" + SLOW + SLOW_DECODING
    workers = ("--workers=2", "--set=data.cache_bytes=0")
    child = start(command(tissue, tmp_path / "run", *workers), said, environment=environment, before=before)
    wait_for(where, 2)
    time.sleep(0.1)
    assert child.pid is not None
    os.killpg(child.pid, number)
    assert finish(child) == [130], said.read_text()
    assert 2 <= state_of(tmp_path / "run")["step"] < 40
    assert "Traceback" not in said.read_text()
