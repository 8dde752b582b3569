"""A training state comes back as it was saved, to the bit and the type, or not at all."""

import contextlib
import math
import os
import struct
import subprocess
import sys
import textwrap
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open
from safetensors.torch import save_file

from restain.errors import FormatError, InputError, OutputError
from restain.files import load_arrays, save_arrays
from restain.training import checkpoint
from restain.training.checkpoint import load_state, read_facts, save_state


def alike(a: Any, b: Any) -> bool:
    """That two states are the same in every type and bit; NaN is NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        raw_a, raw_b = (t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b))
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(raw_a, raw_b)
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return (
            list(a) == list(b)
            and all(type(k) is type(m) for k, m in zip(a, b, strict=True))
            and all(alike(a[key], b[key]) for key in a)
        )
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b) or (math.isnan(a) and math.isnan(b))
    return a == b


# ---- round trips ------------------------------------------------------------------------------------------------

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.bool, torch.float8_e4m3fn, torch.float8_e5m2),
]


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    size = math.prod(shape) * dtype.itemsize
    raw = draw(st.binary(min_size=size, max_size=size))  # any bits: NaN with payloads, subnormals
    if dtype == torch.bool:
        raw = bytes(byte & 1 for byte in raw)
    if not raw:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(raw), dtype=dtype).reshape(shape)


arrays = hnp.arrays(
    hnp.boolean_dtypes()
    | hnp.integer_dtypes(endianness="?")
    | hnp.unsigned_integer_dtypes()
    | hnp.floating_dtypes(endianness="?")
    | hnp.complex_number_dtypes()
    | hnp.unicode_string_dtypes(max_len=4)
    | hnp.datetime64_dtypes(),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**200), 2**200)
    | st.floats()
    | st.text(st.characters(), max_size=8)  # lone surrogates too
    | st.binary(max_size=8)
    | tensors()
    | arrays
    | arrays.filter(lambda a: a.size > 0).map(lambda a: a.reshape(-1)[0])
)
states = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(state=states)
def test_any_state_comes_back(tmp_path: Path, state: Any) -> None:
    save_state(tmp_path / "a.safetensors", state)
    assert alike(load_state(tmp_path / "a.safetensors"), state)


@pytest.mark.parametrize(
    "state",
    [
        {"1": 1, 1: 2, "a/b": torch.ones(2), "a": {"b": torch.zeros(2)}},
        {"__metadata__": torch.ones(3), "": torch.zeros(1), "\ud800": torch.ones(1), "\n": b"x"},
        [-0.0, 5e-324, 1.7976931348623157e308, math.inf, -math.inf, math.nan],
        [2**53, 2**53 + 1, -(2**63), 2**64, 10**5000],
        ((), [], {}, "", b""),
        torch.tensor(3.0),
        np.array(3),
        np.float64(3),
        None,
    ],
    ids=lambda state: str(type(state).__name__),
)
def test_corners_come_back(tmp_path: Path, state: Any) -> None:
    save_state(tmp_path / "a.safetensors", state)
    assert alike(load_state(tmp_path / "a.safetensors"), state)


def test_views_and_shared_memory_become_plain_copies(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    state = [base, base, base.T, base[1], base[:, ::2], base[0, 0], torch.ones(1).expand(5), base.conj()]
    save_state(tmp_path / "a.safetensors", state)
    loaded = load_state(tmp_path / "a.safetensors")
    assert alike(loaded, [t.contiguous() for t in state])
    loaded[0].zero_()
    assert loaded[1].sum() == 276  # not the memory of the first any more
    array = np.arange(12).reshape(3, 4)
    save_state(tmp_path / "a.safetensors", [array.T, array[::-1], np.broadcast_to(array, (2, 3, 4)), array[1]])
    transposed, flipped, broad, row = load_state(tmp_path / "a.safetensors")
    assert (transposed == array.T).all()
    assert (flipped == array[::-1]).all()
    assert (broad == array).all()
    row[0] = -1  # loaded arrays may be written
    assert array[1, 0] == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64, torch.uint16])
def test_the_order_in_memory_is_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    base = torch.arange(120).reshape(2, 3, 4, 5).to(dtype)
    last = base.to(memory_format=torch.channels_last)
    assert last.stride() != base.stride()
    save_state(tmp_path / "a.safetensors", [base, last, last[:, :, :2], last.permute(1, 0, 2, 3)])
    loaded = load_state(tmp_path / "a.safetensors")
    assert alike(loaded, [base, last, last[:, :, :2], last.permute(1, 0, 2, 3)])
    assert [t.stride() for t in loaded[:2]] == [base.stride(), last.stride()]
    writer = checkpoint._Writer()
    writer.encode(last, ())
    assert writer.tensors["state"].data_ptr() == last.data_ptr()  # and it was not copied


def test_training_in_channels_last_goes_on_to_the_bit(tmp_path: Path) -> None:
    def start() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(1)
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.ReLU(), torch.nn.Conv2d(5, 2, 4, stride=2))
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network, torch.optim.Adam(network.parameters(), betas=(0.5, 0.999))

    def update(network: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            images = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            network(images.to(memory_format=torch.channels_last)).square().mean().backward()
            optimizer.step()

    (network, optimizer), (network_2, optimizer_2) = start(), start()
    update(network, optimizer, range(3))
    save_state(tmp_path / "a", [network.state_dict(), optimizer.state_dict()])
    update(network, optimizer, range(3, 6))
    loaded = load_state(tmp_path / "a")
    network_2.load_state_dict(loaded[0])
    optimizer_2.load_state_dict(loaded[1])
    moments = [state["exp_avg"].stride() for state in optimizer.state_dict()["state"].values()]
    assert [state["exp_avg"].stride() for state in optimizer_2.state_dict()["state"].values()] == moments
    update(network_2, optimizer_2, range(3, 6))
    assert alike(dict(network.state_dict()), dict(network_2.state_dict()))
    assert alike(optimizer.state_dict(), optimizer_2.state_dict())


def test_conjugate_and_parameter(tmp_path: Path) -> None:
    value = torch.tensor([1 + 2j, 3 - 1j])
    parameter = torch.nn.Parameter(torch.ones(2))
    save_state(tmp_path / "a.safetensors", [value.conj(), value.conj().imag, parameter])
    a, b, c = load_state(tmp_path / "a.safetensors")
    assert a.tolist() == [1 - 2j, 3 + 1j]
    assert b.tolist() == [-2, 1]
    assert type(c) is torch.Tensor
    assert not c.requires_grad


def test_containers_come_back_plain(tmp_path: Path) -> None:
    save_state(tmp_path / "a.safetensors", [OrderedDict(b=1, a=2), torch.Size([2, 3])])
    loaded = load_state(tmp_path / "a.safetensors")
    assert alike(loaded, [{"b": 1, "a": 2}, (2, 3)])


def test_large_tensors_are_written_from_their_own_memory() -> None:
    weight, moment = torch.zeros(1000), np.zeros(1000)
    writer = checkpoint._Writer()
    writer.encode({"weight": weight, "moment": moment}, ())
    assert writer.tensors["weight"].data_ptr() == weight.data_ptr()
    assert writer.tensors["moment"].data_ptr() == moment.ctypes.data


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    state = {"network": {"weight": torch.arange(5.0), "mask": torch.tensor([True])}, "step": 3}
    for name in ("a", "b"):
        save_state(tmp_path / name, state, facts={"step": 3})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# ---- what training needs ----------------------------------------------------------------------------------------


def train(network: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int, rng: np.random.Generator) -> None:
    for _ in range(steps):
        noise = torch.randn(8, 3) + torch.from_numpy(rng.standard_normal((8, 3))).float()
        optimizer.zero_grad()
        network(noise).square().mean().backward()
        optimizer.step()


OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.5, 0.999)),
    "amsgrad": lambda p: torch.optim.AdamW([{"params": list(p), "lr": 0.02}], amsgrad=True, foreach=False),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_to_the_bit(tmp_path: Path, name: str) -> None:
    def start() -> tuple:
        torch.manual_seed(3)
        network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
        optimizer = OPTIMIZERS[name](network.parameters())
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 9)
        return network, optimizer, schedule, np.random.default_rng(5)

    network, optimizer, schedule, rng = start()
    train(network, optimizer, 3, rng)
    schedule.step()
    saved = {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "rng": {"torch": torch.get_rng_state(), "numpy": rng.bit_generator.state},
    }
    save_state(tmp_path / "a.safetensors", saved)
    train(network, optimizer, 3, rng)

    network_2, optimizer_2, schedule_2, rng_2 = start()
    train(network_2, optimizer_2, 1, rng_2)
    loaded = load_state(tmp_path / "a.safetensors")
    assert type(loaded["optimizer"]["param_groups"][0].get("betas", ())) is tuple
    network_2.load_state_dict(loaded["network"])
    optimizer_2.load_state_dict(loaded["optimizer"])
    schedule_2.load_state_dict(loaded["schedule"])
    torch.set_rng_state(loaded["rng"]["torch"])
    rng_2.bit_generator.state = loaded["rng"]["numpy"]
    train(network_2, optimizer_2, 3, rng_2)

    assert alike(dict(network.state_dict()), dict(network_2.state_dict()))
    assert alike(optimizer.state_dict(), optimizer_2.state_dict())
    assert alike(schedule.state_dict(), schedule_2.state_dict())


@pytest.mark.parametrize("kind", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_numpy_generators_go_on(tmp_path: Path, kind: str) -> None:
    rng = np.random.Generator(getattr(np.random, kind)(7))
    rng.standard_normal(5)
    save_state(tmp_path / "a", rng.bit_generator.state)
    expected = rng.integers(0, 2**31, 50, dtype=np.int32).tolist()
    other = np.random.Generator(getattr(np.random, kind)(8))
    other.bit_generator.state = load_state(tmp_path / "a")
    assert other.integers(0, 2**31, 50, dtype=np.int32).tolist() == expected


def test_python_random_goes_on(tmp_path: Path) -> None:
    import random

    random.seed(4)
    save_state(tmp_path / "a", random.getstate())
    expected = [random.random() for _ in range(5)]
    random.setstate(load_state(tmp_path / "a"))
    assert [random.random() for _ in range(5)] == expected


# ---- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "place"),
    [
        ({"a": [1, object()]}, r"state\['a'\]\[1\] is a object"),
        ({"a": {1, 2}}, "is a set"),
        ({"a": torch.Generator()}, "is a Generator"),
        ({"a": 1j}, "is a complex"),
        ({(1, 2): 3}, r"state has the key \(1, 2\)"),
        ({True: 3}, "has the key True"),
        ({"a": {None: 3}}, r"state\['a'\] has the key None"),
        ({"a": np.array([object()])}, "array of object"),
        ({"a": np.zeros(2, [("x", "f4")])}, "wanted numbers or text"),
        ({"a": np.ma.masked_array([1.0])}, "plain NumPy array"),
        ({"a": torch.ones(2).to_sparse()}, "wanted a dense one"),
        ({"a": torch.empty(2, device="meta")}, "wanted a dense one"),
    ],
)
def test_what_cannot_be_saved_is_named(tmp_path: Path, state: Any, place: str) -> None:
    save_state(tmp_path / "a", {"step": 1})
    with pytest.raises(InputError, match=place):
        save_state(tmp_path / "a", state)
    assert load_state(tmp_path / "a") == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_state_that_holds_itself_is_refused(tmp_path: Path) -> None:
    state: list = []
    state.append(state)
    with pytest.raises(InputError, match="holds itself"):
        save_state(tmp_path / "a", state)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is not a file"):
        load_state(tmp_path / "none")
    with pytest.raises(FormatError, match="is not a file"):
        load_state(tmp_path)
    torch.save({"weight": torch.ones(3)}, tmp_path / "pickle.pt")
    with pytest.raises(FormatError, match="damaged or not a checkpoint"):
        load_state(tmp_path / "pickle.pt")
    save_file({"weight": torch.ones(3)}, tmp_path / "foreign")
    with pytest.raises(FormatError, match="not one saved by restain"):
        load_state(tmp_path / "foreign")
    save_arrays(tmp_path / "normalizer", "normalizer", {"weight": np.ones(3)}, {})
    with pytest.raises(FormatError, match="holds a normalizer; wanted a checkpoint"):
        load_state(tmp_path / "normalizer")


def test_a_checkpoint_says_what_it_is(tmp_path: Path) -> None:
    save_state(tmp_path / "a", {"weight": torch.ones(3)}, facts={"step": 7})
    kind, loaded, facts = load_arrays(tmp_path / "a")
    assert kind == "checkpoint"
    assert facts["version"] == 1
    assert facts["facts"] == read_facts(tmp_path / "a") == {"step": 7}
    assert loaded["weight"].tolist() == [1, 1, 1]  # named by its place, for whoever opens the file


def test_a_newer_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "VERSION", 2)
        save_state(tmp_path / "a", {})
    with pytest.raises(FormatError, match="version 2; this restain reads version 1"):
        load_state(tmp_path / "a")


# ---- damage -----------------------------------------------------------------------------------------------------

STATE = {
    "weight": torch.linspace(0, 1, 7),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "lists": [1, 0.5, (True, None), "text", b"bytes", math.inf, 2**70],
    "array": np.arange(3, dtype=np.uint16),
    "count": torch.tensor(12),
}


def test_every_truncation_is_found(tmp_path: Path) -> None:
    save_state(tmp_path / "a", STATE)
    whole = (tmp_path / "a").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "b").write_bytes(whole[:length])
        with pytest.raises(FormatError) as error:
            load_state(tmp_path / "b")
        assert "\n" not in str(error.value)
    (tmp_path / "b").write_bytes(whole + b"\0")
    with pytest.raises(FormatError):
        load_state(tmp_path / "b")


def test_every_flipped_bit_is_found_or_harmless(tmp_path: Path) -> None:
    save_state(tmp_path / "a", STATE)
    whole = bytearray((tmp_path / "a").read_bytes())
    harmless = 0
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << (place * 5 % 8)
        (tmp_path / "b").write_bytes(flipped)
        try:
            loaded = load_state(tmp_path / "b")
        except FormatError:
            continue
        harmless += 1  # a space that became another
        assert alike(loaded, STATE)
    assert harmless < 20


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_shuffled_bytes_are_found(tmp_path: Path, data: st.DataObject) -> None:
    save_state(tmp_path / "a", STATE)
    whole = bytearray((tmp_path / "a").read_bytes())
    start = data.draw(st.integers(0, len(whole) - 1))
    patch = data.draw(st.binary(min_size=1, max_size=64))
    whole[start : start + len(patch)] = patch
    (tmp_path / "a").write_bytes(whole)
    with contextlib.suppress(FormatError):
        assert alike(load_state(tmp_path / "a"), STATE)


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"what": 1},
        {"tensor": "none", "dtype": "float32", "shape": [1]},
        {"tensor": "t", "dtype": "float32", "shape": [3]},
        {"tensor": "t", "dtype": "int64", "shape": [2]},
        {"tensor": "t", "dtype": "load", "shape": [2]},
        {"tensor": "t", "dtype": "complex128", "shape": [2]},
        {"tensor": "t", "dtype": "float32", "shape": [2], "order": "channels_last"},
        {"array": "t", "dtype": "O", "shape": [2]},
        {"array": "e", "dtype": "<f8", "shape": [10**6, 10**6]},
        {"array": "e", "dtype": "<f8", "shape": [-1]},
        {"scalar": "t", "dtype": "nonsense", "shape": []},
        {"int": "12x"},
        {"float": []},
        {"bytes": 3},
        {"tuple": 3},
        {"dict": [[1]]},
        {"dict": [[[], 2]]},
    ],
    ids=str,
)
def test_trees_that_nobody_wrote_are_format_errors(tmp_path: Path, tree: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a hostile hand would make them: with all checksums right."""
    tensors = {"t": torch.ones(2), "e": torch.empty(0, dtype=torch.uint8)}

    def encode(writer: checkpoint._Writer, _state: Any, _place: Any) -> Any:
        writer.tensors = tensors
        writer.checks = {name: checkpoint._check_tensor(tensor) for name, tensor in tensors.items()}
        return tree

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint._Writer, "encode", encode)
        save_state(tmp_path / "a", None)
    with pytest.raises(FormatError, match="damaged or not a checkpoint"):
        load_state(tmp_path / "a")


def test_tensors_that_the_tree_does_not_know_are_found(tmp_path: Path) -> None:
    save_state(tmp_path / "a", {"weight": torch.ones(2)})
    with safe_open(tmp_path / "a", framework="pt") as stream:
        metadata = stream.metadata()
    save_file({"weight": torch.ones(2), "other": torch.ones(2)}, tmp_path / "a", metadata=metadata)
    with pytest.raises(FormatError, match="not those of its table"):
        load_state(tmp_path / "a")


# ---- a disk that is full ----------------------------------------------------------------------------------------

FULL = """
import resource, sys
import torch
from restain.errors import OutputError
from restain.training.checkpoint import load_state, save_state
path = sys.argv[1]
save_state(path, {"step": 1, "weight": torch.ones(10)})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_state(path, {"step": 2, "weight": torch.ones(100_000)})
except OutputError as error:
    print(error)
assert load_state(path)["step"] == 1
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX limits")
def test_a_file_that_cannot_grow_leaves_the_one_before(tmp_path: Path) -> None:
    """The system refuses to write on, as it does when the disk is full."""
    command = [sys.executable, "-c", textwrap.dedent(FULL), str(tmp_path / "a.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "cannot write" in done.stdout
    assert "File too large" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_full_disk_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    import safetensors.torch

    save_state(tmp_path / "a", {"step": 1})

    def full(_tensors: Any, path: Path, **_options: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save_state(tmp_path / "a", {"step": 2})
    monkeypatch.undo()
    assert load_state(tmp_path / "a") == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
