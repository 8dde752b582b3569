"""The log loses no line that was written, and after a resume holds each step once."""

import errno
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from restain.errors import FormatError, MissingExtraError, OutputError
from restain.training import metrics_log
from restain.training.metrics_log import MetricsLog, plot_losses, read_metrics


def write(log: MetricsLog, step: int, **losses: float) -> None:
    log.write(step, epoch=step / 10, seconds=step / 2, losses=losses or {"cycle": 1 / step}, rates={"generator": 2e-4})


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_bytes().splitlines()]


def filled(path: Path, last: int) -> Path:
    with MetricsLog(path) as log:
        for step in range(1, last + 1):
            write(log, step)
    return path


# ---- lines ------------------------------------------------------------------------------------------------------


def test_a_line_is_strict_json_and_there_at_once(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "m.jsonl")
    write(log, 3, cycle=0.25, **{"discriminator_source": np.float32(0.5), "bad": math.nan, "worse": -math.inf})
    text = (tmp_path / "m.jsonl").read_text()  # before the log is closed
    assert text.endswith("}\n")

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    assert json.loads(text, parse_constant=refuse) == {
        "step": 3,
        "epoch": 0.3,
        "seconds": 1.5,
        "losses": {"cycle": 0.25, "discriminator_source": 0.5, "bad": None, "worse": None},
        "rates": {"generator": 2e-4},
    }
    (line,) = read_metrics(tmp_path / "m.jsonl")
    assert line["losses"]["cycle"] == 0.25
    assert math.isnan(line["losses"]["bad"])
    log.close()


def test_a_log_that_is_there_is_added_to(tmp_path: Path) -> None:
    path = filled(tmp_path / "m.jsonl", 3)
    with MetricsLog(path) as log:
        write(log, 4)
        log.sync()
    assert steps(path) == [1, 2, 3, 4]


@pytest.mark.parametrize("resume", [0, 3, 7, 8, 100])
def test_lines_after_the_checkpoint_are_removed(tmp_path: Path, resume: int) -> None:
    path = filled(tmp_path / "m.jsonl", 7)
    with MetricsLog(path, resume_step=resume) as log:
        write(log, resume + 1)
    assert steps(path) == [*range(1, min(resume, 7) + 1), resume + 1]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 400), junk=st.binary(max_size=30))
def test_torn_lines_are_removed(tmp_path: Path, cut: int, junk: bytes) -> None:
    """Cut anywhere, with rubbish behind, as a power cut leaves it: whole lines stay, and the next is whole."""
    (tmp_path / "m.jsonl").unlink(missing_ok=True)
    path = filled(tmp_path / "m.jsonl", 4)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut] + junk)
    with MetricsLog(path, resume_step=10) as log:
        write(log, 11)
    # A line cut of nothing but its end is whole, as long as no rubbish follows.
    least = whole[:cut].count(b"\n")
    found = steps(path)
    assert found[-1] == 11
    assert found[:-1] in (list(range(1, least + 1)), list(range(1, least + 2)))


def test_what_is_whole_is_not_written_again(tmp_path: Path) -> None:
    path = filled(tmp_path / "m.jsonl", 3)
    before = path.stat().st_ino
    MetricsLog(path, resume_step=3).close()
    assert path.stat().st_ino == before


def test_strange_lines_are_passed_over(tmp_path: Path) -> None:
    path = filled(tmp_path / "m.jsonl", 2)
    with path.open("ab") as stream:
        stream.write(b'{}\n[1]\n{"step": "3", "losses": {}, "rates": {}}\n\n\x00\x00\n{"step": 3}\n')
    assert [line["step"] for line in read_metrics(path)] == [1, 2]


WRITE = """
import sys
from restain.training.metrics_log import MetricsLog
log = MetricsLog(sys.argv[1])
print("open", flush=True)
for step in range(10**9):
    log.write(step, epoch=0, seconds=0, losses={"a": 1.0}, rates={})
    print(step, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX does")
def test_a_kill_loses_no_line(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    child = subprocess.Popen([sys.executable, "-c", WRITE, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(200):
        child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    said = [line for line in child.communicate()[0].splitlines(keepends=True) if line.endswith("\n")]
    last = int(said[-1]) if said else 198
    found = [line["step"] for line in read_metrics(path)]
    assert found == list(range(len(found)))
    assert found[-1] >= last


# ---- what fails -------------------------------------------------------------------------------------------------


class FullDisk:
    """A stream that takes a few bytes of each line, and then none at all."""

    def __init__(self, stream: Any, room: int) -> None:
        self.stream, self.room = stream, room

    def write(self, data: Any) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = min(len(data), self.room, 7)
        self.room -= taken
        return self.stream.write(data[:taken])

    def close(self) -> None:
        self.stream.close()


def test_a_full_disk_is_one_line_and_the_log_can_be_taken_up_again(tmp_path: Path) -> None:
    path = filled(tmp_path / "m.jsonl", 2)
    with MetricsLog(path) as log:
        log._stream = FullDisk(log._stream, 10**6)  # type: ignore[assignment]
        write(log, 3)  # in many small pieces
        log._stream.room = 20  # type: ignore[attr-defined]
        with pytest.raises(OutputError, match=r"cannot write .*m\.jsonl: No space left on device"):
            write(log, 4)
    with MetricsLog(path, resume_step=4) as log:
        write(log, 4)
    assert steps(path) == [1, 2, 3, 4]


def test_a_log_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        MetricsLog(tmp_path / "none" / "m.jsonl")
    with pytest.raises(FormatError, match="cannot be read"):
        read_metrics(tmp_path / "none.jsonl")


# ---- TensorBoard ------------------------------------------------------------------------------------------------


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with MetricsLog(tmp_path / "m.jsonl", tensorboard=tmp_path / "tb") as log:
        for step in (1, 2, 3):
            write(log, step)
    with MetricsLog(tmp_path / "m.jsonl", tensorboard=tmp_path / "tb", resume_step=1) as log:
        write(log, 2, cycle=7.0)
    events = EventAccumulator(str(tmp_path / "tb")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("losses/cycle")] == [(1, 1.0), (2, 7.0)]
    assert events.Scalars("rates/generator")[0].value == pytest.approx(2e-4)


def test_a_missing_tensorboard_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match="pip install tensorboard"):
        MetricsLog(tmp_path / "m.jsonl", tensorboard=tmp_path / "tb")
    MetricsLog(tmp_path / "m.jsonl").close()  # and without it nothing is needed


# ---- curves -----------------------------------------------------------------------------------------------------


def test_curves_are_drawn_by_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, list[str], str]] = []
    draw = metrics_log._draw

    def spy(axes: Any, title: str, curves: Any, *, rates: bool) -> None:
        draw(axes, title, curves, rates=rates)
        seen.append((axes.get_title(), list(curves), axes.get_yscale()))

    monkeypatch.setattr(metrics_log, "_draw", spy)
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        for step in range(1, 100):
            losses = {"cycle_source": math.exp(-step / 10), "cycle_target": 0.1, "identity": 0.5}
            log.write(step, epoch=0, seconds=0, losses=losses | {"gap": math.nan}, rates={"generator": 1 / step})
    path = plot_losses(tmp_path, tmp_path / "curves.png")
    assert seen == [
        ("cycle", ["cycle_source", "cycle_target"], "log"),
        ("identity", ["identity"], "linear"),
        ("gap", ["gap"], "linear"),
        ("learning rate", ["generator"], "linear"),
    ]
    image = Image.open(path)
    image.load()
    assert image.format == "PNG"
    assert plot_losses(tmp_path / "metrics.jsonl", path) == path  # again, over the old one
    assert sorted(p.name for p in tmp_path.iterdir()) == ["curves.png", "metrics.jsonl"]


@pytest.mark.parametrize("count", [1, 2, 12])
def test_short_logs_are_drawn(tmp_path: Path, count: int) -> None:
    filled(tmp_path / "metrics.jsonl", count)
    assert Image.open(plot_losses(tmp_path, tmp_path / "c.png")).width > 100


def test_nothing_to_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MetricsLog(tmp_path / "metrics.jsonl").close()
    with pytest.raises(FormatError, match="has no line to draw"):
        plot_losses(tmp_path, tmp_path / "c.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match="needs matplotlib"):
        plot_losses(tmp_path, tmp_path / "c.png")


def test_the_running_mean_is_a_mean() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(700)
    values[[3, 4, 300]] = np.nan
    values[500:530] = np.nan
    found = metrics_log._running_mean(values)
    for place in (0, 1, 3, 299, 350, 498, 699):
        window = values[max(place - 7, 0) : place + 8]
        assert found[place] == pytest.approx(np.nanmean(window))
    assert np.isnan(found[515])


def test_bins_are_means_of_neighbours() -> None:
    count = 10_007
    x, y = metrics_log._binned(np.arange(count, dtype=float), np.arange(count, dtype=float) * 2)
    assert len(x) == len(y) == metrics_log._POINTS
    np.testing.assert_allclose(y, 2 * x)
    assert (np.diff(x) > 0).all()
    assert x[0] == np.arange(round(2 * x[0]) + 1).mean()
