"""The log of a training run: one JSON line per report, TensorBoard where asked for, and the curves drawn.

{"step": 1200, "epoch": 3.4, "seconds": 310.2, "losses": {"cycle": 0.123, …}, "rates": {"generator": 0.0002}}
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from restain.errors import FormatError, MissingExtraError, OutputError
from restain.files import write_atomically

_POINTS = 1500
"""Most points that one line of a drawing has; more are averaged."""


class MetricsLog:
    """Appends lines to `metrics.jsonl`; each is handed to the system at once, so that a kill loses none.

    As a context manager it closes itself.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        resume_step: int | None = None,
        tensorboard: str | os.PathLike[str] | None = None,
    ) -> None:
        """Open the log, to be written on.

        Args:
            path: the file; made where it is missing.
            resume_step: the updates done at the checkpoint that training goes on from: lines of later steps are
                removed, and lines that a kill or a full disk tore. None keeps what is there.
            tensorboard: the folder for TensorBoard's events, None for none.

        Raises:
            OutputError: the file cannot be written.
            MissingExtraError: TensorBoard is asked for and not installed.
        """
        self.path = Path(path)
        self._board: Any = None if tensorboard is None else _summary_writer(Path(tensorboard), resume_step)
        if self.path.exists():
            _trim(self.path, math.inf if resume_step is None else resume_step)
        try:
            self._stream = self.path.open("ab", buffering=0)
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from error

    def write(
        self, step: int, *, epoch: float, seconds: float, losses: Mapping[str, float], rates: Mapping[str, float]
    ) -> None:
        """Append one line.

        Args:
            step: updates done.
            epoch: passes over the data done, a fraction within one.
            seconds: time trained, over all starts of the run.
            losses: by name; NaN and Inf, which JSON has not, become null.
            rates: learning rates by optimizer.

        Raises:
            OutputError: the disk is full.
        """
        line = {
            "step": int(step),
            "epoch": _finite(epoch),
            "seconds": _finite(seconds),
            "losses": {name: _finite(value) for name, value in losses.items()},
            "rates": {name: _finite(value) for name, value in rates.items()},
        }
        data = memoryview(json.dumps(line, allow_nan=False).encode() + b"\n")
        try:
            while data:
                data = data[self._stream.write(data) :]
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from error
        if self._board is not None:
            for name, value in losses.items():
                self._board.add_scalar(f"losses/{name}", value, step)
            for name, value in rates.items():
                self._board.add_scalar(f"rates/{name}", value, step)

    def sync(self) -> None:
        """Make all lines durable; called before a checkpoint is written, its lines outlive a power cut too."""
        try:
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from error
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Close the file and TensorBoard's."""
        self._stream.close()
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a log, oldest first; torn ones are passed over, null losses are NaN.

    Raises:
        FormatError: the file cannot be read.
    """
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}") from error
    found = [line for line in map(_parse, lines) if line is not None]
    for line in found:
        for group in ("losses", "rates"):
            line[group] = {name: math.nan if value is None else value for name, value in line[group].items()}
    return found


def plot_losses(log: str | os.PathLike[str], output: str | os.PathLike[str]) -> Path:
    """Draw a log as a PNG: one panel per kind of loss, and one of the learning rates.

    The kind is the first word of a loss's name: `cycle_source` and `cycle_target` share a panel. What was logged is
    drawn pale, its running mean on top; a panel whose means span more than a factor of 20 has a logarithmic axis.

    Args:
        log: a `metrics.jsonl`, or the folder of a run.
        output: the PNG, replaced where it is there.

    Returns:
        `output`.

    Raises:
        MissingExtraError: matplotlib is not installed.
        FormatError: the log cannot be read, or has no line.
        OutputError: `output` cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            f"drawing curves needs matplotlib ({error}); install it with: pip install 'restain[train]'"
        ) from error
    log = Path(log)
    lines = read_metrics(log / "metrics.jsonl" if log.is_dir() else log)
    if not lines:
        raise FormatError(f"{log} has no line to draw")
    panels = _panels(lines)
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5 * columns, 3.2 * rows), layout="constrained", dpi=110)
    for axes, (title, curves) in zip(figure.subplots(rows, columns, squeeze=False).flat, panels.items(), strict=False):
        _draw(axes, title, curves, rates=title == "learning rate")
    for axes in figure.axes[len(panels) :]:
        axes.set_visible(False)
    write_atomically(output, lambda stream: figure.savefig(stream, format="png"), overwrite=True)
    return Path(output)


# ---- lines ------------------------------------------------------------------------------------------------------


def _finite(value: float) -> float | None:
    value = float(value)
    return value if math.isfinite(value) else None


def _parse(line: bytes) -> dict[str, Any] | None:
    """One line, None where it is torn."""
    try:
        found = json.loads(line)
        whole = (
            isinstance(found["step"], int) and isinstance(found["losses"], dict) and isinstance(found["rates"], dict)
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return found if whole else None


def _trim(path: Path, last_step: float) -> None:
    """Keep the whole lines up to a step; the file is replaced in one step, and only if there is anything to remove."""
    try:
        before = path.read_bytes()
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror}") from error
    kept = []
    for line in before.split(b"\n"):
        found = _parse(line)
        if found is not None and found["step"] <= last_step:
            kept.append(line + b"\n")
    after = b"".join(kept)
    if after != before:
        write_atomically(path, lambda stream: stream.write(after), overwrite=True)


def _summary_writer(folder: Path, resume_step: int | None) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError(
            f"TensorBoard was asked for and is not installed ({error}); install it with: pip install tensorboard"
        ) from error
    purge = None if resume_step is None else resume_step + 1
    writer: Any = SummaryWriter
    return writer(str(folder), purge_step=purge)


# ---- curves -----------------------------------------------------------------------------------------------------

_Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


def _panels(lines: list[dict[str, Any]]) -> dict[str, dict[str, _Curve]]:
    """Curves (steps, values) by name, by panel."""
    panels: dict[str, dict[str, _Curve]] = {}
    for group in ("losses", "rates"):
        for name in dict.fromkeys(name for line in lines for name in line[group]):
            points = [(line["step"], line[group][name]) for line in lines if name in line[group]]
            title = name.replace("/", "_").partition("_")[0] if group == "losses" else "learning rate"
            steps, values = np.array(points, dtype=np.float64).T
            panels.setdefault(title, {})[name] = (steps, values)
    return panels


def _draw(axes: Any, title: str, curves: Mapping[str, _Curve], *, rates: bool) -> None:
    seen = []
    for index, (name, (steps, values)) in enumerate(curves.items()):
        steps, values = _binned(steps, values)
        color = f"C{index}"
        if not rates and len(values) > 10:
            axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
            values = _running_mean(values)
        axes.plot(steps, values, color=color, linewidth=1.6, label=name, marker="." if len(values) < 3 else None)
        seen.append(values[np.isfinite(values)])
    everything = np.concatenate(seen)
    if not rates and len(everything) and everything.min() > 0 and everything.max() > 20 * everything.min():
        axes.set_yscale("log")
    axes.set_title(next(iter(curves)) if len(curves) == 1 and not rates else title)
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        axes.legend(fontsize="small")


def _binned(steps: NDArray[np.float64], values: NDArray[np.float64]) -> _Curve:
    """At most `_POINTS` points: means of equally many neighbours."""
    if len(values) <= _POINTS:
        return steps, values
    edges = np.linspace(0, len(values), _POINTS + 1).astype(int)
    counts = np.diff(edges)
    return np.add.reduceat(steps, edges[:-1]) / counts, np.add.reduceat(values, edges[:-1]) / counts


def _running_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over a fiftieth of the curve, at least five points, centred; fewer at the ends. NaN are passed over."""
    half = max(len(values) // 100, 2)
    finite = np.isfinite(values)
    sums = np.concatenate([[0], np.cumsum(np.where(finite, values, 0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    places = np.arange(len(values))
    start, stop = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    count = counts[stop] - counts[start]
    mean = (sums[stop] - sums[start]) / np.maximum(count, 1)
    return np.where(count > 0, mean, np.nan)
