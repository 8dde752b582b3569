"""Progress: pace and time left are right, and where there is no terminal a line comes only now and then."""

import io
import sys

import pytest

from restain.training.progress import Pace, duration, training_progress


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# ---- pace -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.05, 2.0, 500.0])
def test_pace_and_time_left(rate: float) -> None:
    clock = Clock()
    pace = Pace(1_000_000, 400, clock)
    assert pace.rate is None
    assert pace.left is None
    for step in range(401, 2000):
        clock.now += 1 / rate
        pace.update(step)
        assert pace.rate == pytest.approx(rate)
    assert pace.left == pytest.approx((1_000_000 - 1999) / rate)


def test_pace_is_that_of_the_last_minute() -> None:
    clock = Clock()
    pace = Pace(10_000, 0, clock)
    for step in range(1, 2001):
        clock.now += 1.0 if step <= 1000 else 0.1
        pace.update(step)
    assert pace.rate == pytest.approx(10)


def test_time_left_ends_at_nothing() -> None:
    clock = Clock()
    pace = Pace(10, 0, clock)
    for step in (10, 11):
        clock.now += 1
        pace.update(step)
        assert pace.left == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (3569, "59 min"), (3599, "1 h 00 min"), (11_100, "3 h 05 min")),
        *((47.9 * 3600, "47 h 54 min"), (52.2 * 3600, "2 d 4 h"), (100 * 24 * 3600, "100 d 0 h")),
    ],
)
def test_durations_as_a_person_says_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# ---- without a terminal -----------------------------------------------------------------------------------------


def test_lines_come_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    losses = {"generator": 0.123456, "cycle": 1234.5, "identity": 1e-5, "discriminator_source": 0.25, "more": 1.0}
    with training_progress(1000, 500, every=60, clock=clock) as progress:
        for step in range(501, 1001):
            clock.now += 0.5
            progress.update(step, losses)
        progress.say("checkpoint")
    lines = capsys.readouterr().err.splitlines()
    # The first after ten seconds, then one a minute (a step is half a second), then the last step.
    assert [line.split(",")[0] for line in lines] == [
        *("step 520/1000", "step 640/1000", "step 760/1000", "step 880/1000", "step 1000/1000"),
        "checkpoint",
    ]
    assert lines[0] == (
        "step 520/1000, 2 steps/s, 4 min left, generator 0.123, cycle 1.23e+03, identity 1e-05, "
        "discriminator_source 0.25, …"
    )
    assert "left" not in lines[4]


def test_slow_steps_are_seconds_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with training_progress(1000, clock=clock) as progress:
        clock.now += 12.5
        progress.update(1, {"l1": 0.5})
    assert capsys.readouterr().err == "step 1/1000, 12.5 s/step, 3 h 28 min left, l1 0.5\n"


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with training_progress(10, clock=clock, quiet=True) as progress:
        clock.now += 1000
        progress.update(10, {})
        progress.say("word")
    assert capsys.readouterr() == ("", "")


class Gone(io.StringIO):
    """The stream of a terminal that was closed."""

    def write(self, _text: str) -> int:
        raise OSError(5, "Input/output error")


def test_a_lost_terminal_does_not_stop_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Gone())
    with training_progress(1) as progress:
        progress.update(1, {})


# ---- on a terminal ----------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """What a terminal is to those who ask."""

    def isatty(self) -> bool:
        return True


def test_the_bar_shows_steps_pace_and_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    clock = Clock()
    with training_progress(1000, 100, clock=clock) as progress:
        for step in range(101, 201):
            clock.now += 0.25
            progress.update(step, {"cycle[a]": 0.5})
        progress.say("wrote [bold]step-00000200[/bold]")
    text = terminal.getvalue()
    assert "200/1000" in text
    assert "4 steps/s, 3 min left, cycle[a] 0.5" in text
    assert "wrote [bold]step-00000200[/bold]" in text  # no markup: names are shown as they are
