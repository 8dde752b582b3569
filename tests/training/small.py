"""Trainings that take a second: phantom tiles, narrow networks, and what tells two runs apart."""

import json
import multiprocessing
import os
import socket
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from restain.phantom import STAINS_A, STAINS_B, Scanner, make_phantom, render
from restain.training.checkpoint import load_state
from restain.training.settings import Recipe, make_recipe, merged

SIDE = 48

CONFIGS: dict[str, dict[str, Any]] = {
    "staingan": {
        "channels": 4,
        "blocks": 1,
        "discriminator_channels": 4,
        "discriminator_layers": 1,
        "crop": 32,
        "batch_size": 2,
        "pool_size": 3,
        "epochs": 2,
        "decay_epochs": 1,
    },
    "stainnet": {"channels": 8, "crop": 32, "batch_size": 2, "epochs": 3, "crop_position": "random"},
    "stst": {"channels": 2, "crop": 256, "batch_size": 1, "epochs": 3},
    "dstgan": {
        "channels": 6,
        "merges": 3,
        "attention_window": 2,
        "depths": 1,
        "checkpoint": False,
        "heads": (1, 2, 3),
        "discriminator_channels": 2,
        "hist_bins": 8,
        "hist_size": 16,
        "crop": 32,
        "batch_size": 2,
        "epochs": 3,
    },
    "nst": {
        "channels": 2,
        "body": "lite",
        "stem_stride": 1,
        "discriminator_channels": 2,
        "feature_network": "squeezenet1_0",
        "feature_weights": "random",
        "style_layers": ("relu1", "fire2"),
        "content_pairs": 6,
        "crop": 32,
        "batch_size": 2,
        "epochs": 3,
    },
}
"""By system, settings that make it small."""


def write_tissue(folder: Path) -> Path:
    """Two labs' tiles: `a` and `b` of other tissue, unequally many; `x` and `y` of the same tissue, by name."""
    scanners = Scanner(noise=1.0), Scanner(white=(236.0, 231.0, 228.0), noise=1.0)
    one = make_phantom(7 * SIDE, SIDE, seed=1, stain_matrix=STAINS_A, scanner=scanners[0])
    two = make_phantom(6 * SIDE, SIDE, seed=2, stain_matrix=STAINS_B, scanner=scanners[1])
    again = render(one.concentrations, one.rbc, STAINS_B, scanners[1], seed=3)
    for name, strip in (("a", one.image), ("b", two.image), ("x", one.image), ("y", again)):
        (folder / name).mkdir(parents=True)
        for number in range(len(strip) // SIDE):
            Image.fromarray(strip[number * SIDE : (number + 1) * SIDE]).save(folder / name / f"{number}.png")
    return folder


def values_for(system: str, tissue: Path, **tables: Any) -> dict[str, Any]:
    """A small recipe's plain values; `tables` go before them."""
    data: dict[str, Any] = {"source": [str(tissue / "a")], "target": [str(tissue / "b")]}
    if system == "stst":
        data = {"target": [str(tissue / "b")]}
    if system == "stainnet":
        data = {"source": [str(tissue / "x")], "target": [str(tissue / "y")], "pairs": "names"}
    every = {"log_every": 3, "validate_every": 4, "checkpoint_every": 3, "pictures": 2}
    every |= {"precision": "no"}  # whatever this hardware multiplies fast
    base = {"system": system, "config": CONFIGS[system], "data": {**data, "workers": 0}, "training": every}
    return merged(base, tables)


def recipe_for(system: str, tissue: Path, **tables: Any) -> Recipe:
    """A small recipe."""
    return make_recipe(values_for(system, tissue, **tables))


# ---- what a run has left ----------------------------------------------------------------------------------------


def steps_of(run: Path) -> list[int]:
    """The steps of the checkpoints, the best one not counted."""
    return sorted(int(path.stem[5:]) for path in (run / "checkpoints").glob("step-*.safetensors"))


def state_of(run: Path) -> dict[str, Any]:
    """The newest checkpoint's state."""
    state: dict[str, Any] = load_state(run / "checkpoints" / f"step-{steps_of(run)[-1]:08d}.safetensors")
    return state


def lines_of(run: Path) -> list[dict[str, Any]]:
    """The log's lines."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(one: Path, other: Path) -> None:
    """Two runs have done the same, to the bit; only the time they took may differ."""
    states = [state_of(run) for run in (one, other)]
    logs = [lines_of(run) for run in (one, other)]
    for record in [*states, *(line for log in logs for line in log)]:
        assert record.pop("seconds") >= 0
    assert_same(*states)
    assert logs[0] == logs[1]
    assert (one / "normalizer.safetensors").read_bytes() == (other / "normalizer.safetensors").read_bytes()
    sheets = [{path.name: path.read_bytes() for path in (run / "pictures").iterdir()} for run in (one, other)]
    assert sheets[0] == sheets[1]


def assert_same(one: Any, other: Any, place: str = "") -> None:
    """Two nested states are the same, tensors bit for bit."""
    assert type(one) is type(other), place
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for name, value in one.items():
            assert_same(value, other[name], f"{place}/{name}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for index, value in enumerate(one):
            assert_same(value, other[index], f"{place}/{index}")
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, place
        arrays = [(value.float() if value.dtype == torch.bfloat16 else value).numpy() for value in (one, other)]
        assert np.array_equal(*arrays, equal_nan=one.is_floating_point()), place
    else:
        assert one == other, place


# ---- in processes of their own ----------------------------------------------------------------------------------

CHILD = """
import multiprocessing, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell lets its background processes ignore
multiprocessing.current_process()._config["daemon"] = False  # it ends with the tests, and may have processes of its own
multiprocessing.set_start_method("fork", force=True)  # of those: as in a process that nobody forked
os.environ.update(environment)
with open(output, "ab") as file:
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))
import torch
torch.set_num_threads(1)
import restain.training.session
restain.training.session.plot_losses = lambda log, output: output  # it takes longer than all else
from restain.cli import main
exec(before)
main(arguments)
"""


def quickly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, which is faster for small networks, and no drawing of curves, which takes longer than all else."""
    monkeypatch.setattr("restain.training.session.plot_losses", lambda log, output: output)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def start(
    arguments: Sequence[object], output: Path, *, environment: dict[str, str] | None = None, before: str = ""
) -> BaseProcess:
    """`restain ARGUMENTS…` in a process of its own, forked from one that has imported what takes long.

    Args:
        arguments: of the command line.
        output: the file that what it prints is appended to.
        environment: variables that it shall have.
        before: code to run before the command.
    """
    context = multiprocessing.get_context("forkserver")
    heavy = ["restain.cli", "restain.training.loop", "restain.color.kernels", "accelerate"]
    context.set_forkserver_preload([*heavy, "torch._dynamo", "torch.distributed.fsdp"])  # optimizers import those
    # The repository's own packages are no part of the child; what it runs is sent as text.
    scope = {
        "environment": {"OMP_NUM_THREADS": "1", **(environment or {})},
        "output": str(output),
        "arguments": [str(argument) for argument in arguments],
        "before": before,
    }
    child = context.Process(target=exec, args=(CHILD, scope), daemon=True)
    child.start()
    return child


def start_several(count: int, arguments: Sequence[object], output: Path, *, before: str = "") -> list[BaseProcess]:
    """The same command in processes that train together, as a launcher would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    return [
        start(
            arguments,
            output.with_name(f"{output.name}-{rank}"),
            environment={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            before=before,
        )
        for rank in range(count)
    ]


def finish(*children: BaseProcess, timeout: float = 240) -> list[int | None]:
    """Wait for processes; their exit codes, negative for a signal."""
    for child in children:
        child.join(timeout)
        if child.is_alive():
            child.kill()
            child.join()
    return [child.exitcode for child in children]


POSIX = os.name == "posix"
