"""A training state in one file: nested Python values with tensors, as safetensors; never a pickle.

The tensors are the file's tensors, named by where they stand in the state. Everything else is a JSON tree in the
file's metadata: plain JSON where JSON has the value, else a dict whose first key says what it is (`{"tuple": […]}`,
`{"float": "nan"}`, `{"tensor": name, …}`). Every tensor and the tree itself have a CRC-32, since one flipped bit in a
weight would otherwise train on in silence.
"""

import json
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from restain.errors import FormatError, InputError, OutputError
from restain.files import atomic_output

KIND = "checkpoint"
VERSION = 1

_NATIVE = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Types that every release of safetensors knows; tensors of the others are saved as their bytes."""

_LARGEST_JSON_INT = 2**53


def save_state(path: str | os.PathLike[str], state: Any, *, facts: Mapping[str, Any] | None = None) -> None:
    """Write a nested state as one file, whole or not at all, replacing `path`.

    A state is made of dicts (keys str or int), lists, tuples, None, bool, int, float, str, bytes, torch tensors, NumPy
    arrays and NumPy scalars. Subclasses of the containers come back as plain ones. Tensors are saved as they are on
    the CPU: of any type and shape, each its own copy (views and shared memory are not kept), without gradient. Their
    order in memory is kept where it is the usual one or `channels_last`: an optimizer whose moments lie otherwise than
    its weights may round otherwise, and a resumed run must not. Such CPU tensors are written from their own memory.

    Args:
        path: the file, `….safetensors`.
        state: what to save, such as `{"networks": …state_dict(), "optimizers": …state_dict(), "step": 1000}`.
        facts: plain JSON beside the state that `read_facts` reads without the tensors.

    Raises:
        InputError: a value of another type; the message says where it stands.
        OutputError: the file cannot be written (a full disk); what was at `path` before is still there.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    writer = _Writer()
    try:
        tree = writer.encode(state, ())
    except RecursionError:
        raise InputError("a state is nested beyond all measure, or holds itself") from None
    body = {"kind": KIND, "version": VERSION, "facts": dict(facts or {}), "tree": tree, "checks": writer.checks}
    text = json.dumps({**body, "check": _check_text(body)}, allow_nan=False)
    with atomic_output(path, overwrite=True, replaced=True) as temporary:  # safetensors renames, too
        try:
            save_file(writer.tensors, temporary, metadata={"restain": text})
        except SafetensorError as error:  # not an OSError, though it is one at heart
            raise OutputError(f"cannot write {path}: {error}") from error


def load_state(path: str | os.PathLike[str]) -> Any:
    """Read what `save_state` wrote; all tensors on the CPU, in memory of their own.

    Raises:
        FormatError: the file is missing, damaged, of another kind or of a newer version.
    """
    from safetensors import SafetensorError, safe_open

    body = _read_body(Path(path))
    try:
        # The tensors of `safe_open` are windows on the file; `clone` makes them memory that outlives it.
        with safe_open(path, framework="pt") as stream:
            tensors = {name: stream.get_tensor(name).clone() for name in stream.keys()}  # noqa: SIM118 (not a dict)
        if tensors.keys() != body["checks"].keys():
            raise ValueError("its tensors are not those of its table")
        for name, tensor in tensors.items():
            if _check_tensor(tensor) != body["checks"][name]:
                raise ValueError(f"the checksum of {name} is wrong")
        return _decode(body["tree"], tensors)
    except (SafetensorError, OSError, RecursionError, *_MALFORMED) as error:
        raise _damaged(path, error) from error


def read_facts(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The facts of a state's file, without reading its tensors.

    Raises:
        FormatError: the file is missing, its head is damaged, or it is of another kind or of a newer version.
    """
    return dict(_read_body(Path(path))["facts"])


_MALFORMED = (AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError, RuntimeError)
"""What reading a damaged tree may raise."""


def _damaged(path: str | os.PathLike[str], error: Exception) -> FormatError:
    reason = " ".join(str(error).split())
    return FormatError(f"{path} is damaged or not a checkpoint ({type(error).__name__}: {reason})")


def _read_body(path: Path) -> dict[str, Any]:
    """The JSON of a file, checked."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FormatError(f"{path} is not a file; wanted a checkpoint saved by restain")
    try:
        with safe_open(path, framework="pt") as stream:
            text = (stream.metadata() or {}).get("restain")
        body = None if text is None else json.loads(text)
        if body is not None:
            kind, version, check = body["kind"], body.get("version"), body.pop("check", None)
            intact = check == _check_text(body)
    except (SafetensorError, OSError, RecursionError, *_MALFORMED) as error:
        raise _damaged(path, error) from error
    if body is None:
        raise FormatError(f"{path} is a safetensors file, but not one saved by restain")
    if kind != KIND and check is None:
        raise FormatError(f"{path} holds a {kind!s:.40}; wanted a checkpoint")
    if not intact:
        raise FormatError(f"{path} is damaged: the checksum of its head is wrong")
    if version != VERSION:
        raise FormatError(f"{path} is a checkpoint of version {version}; this restain reads version {VERSION}")
    return dict(body)


# ---- checksums --------------------------------------------------------------------------------------------------


def _check_text(body: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(body, allow_nan=False).encode())


def _check_tensor(tensor: torch.Tensor) -> int:
    """Of a contiguous tensor's type, shape and bytes."""
    head = f"{tensor.dtype} {list(tensor.shape)}".encode()
    return zlib.crc32(_bytes_of(tensor).numpy().data, zlib.crc32(head))


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    """The memory of a contiguous tensor as uint8 (n,), not copied."""
    return tensor.reshape(-1).view(torch.uint8)


# ---- values to JSON ---------------------------------------------------------------------------------------------


class _Writer:
    """Turns a state into a JSON tree; collects its tensors by name, and their checksums."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self.checks: dict[str, int] = {}
        self._memory: set[int] = set()

    def encode(self, value: Any, place: tuple[str | int, ...]) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, np.generic | np.ndarray):
            return self._array(value, place)
        if isinstance(value, torch.Tensor):
            return self._tensor(value, place)
        if isinstance(value, int):
            value = int(value)
            return value if abs(value) <= _LARGEST_JSON_INT else {"int": hex(value)}
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"float": str(float(value))}
        if isinstance(value, str):
            return str(value)
        if isinstance(value, bytes | bytearray):
            raw = torch.frombuffer(bytearray(value), dtype=torch.uint8) if value else torch.empty(0, dtype=torch.uint8)
            return {"bytes": self._store(raw, place)}
        if isinstance(value, dict):
            for key in value:
                if type(key) not in (str, int):
                    raise InputError(f"{_named(place)} has the key {key!r:.60}; a checkpoint keeps str and int")
            return {"dict": [[self.encode(key, ()), self.encode(item, (*place, key))] for key, item in value.items()]}
        if isinstance(value, list | tuple):
            items = [self.encode(item, (*place, index)) for index, item in enumerate(value)]
            return items if isinstance(value, list) else {"tuple": items}
        raise InputError(f"{_named(place)} is a {type(value).__name__}, which a checkpoint cannot hold; save its state")

    def _tensor(self, tensor: torch.Tensor, place: tuple[str | int, ...]) -> dict[str, Any]:
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
            raise InputError(f"{_named(place)} is a sparse, quantized or meta tensor; wanted a dense one")
        dtype, shape = str(tensor.dtype).removeprefix("torch."), list(tensor.shape)
        tensor = tensor.detach().resolve_conj().resolve_neg().cpu()
        order = {}
        if not tensor.is_contiguous() and tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
            tensor, order = tensor.permute(0, 2, 3, 1), {"order": "channels_last"}
        tensor = tensor.contiguous()
        if tensor.dtype not in _NATIVE:
            tensor = _bytes_of(tensor)
        return {"tensor": self._store(tensor, place), "dtype": dtype, "shape": shape, **order}

    def _array(self, value: "np.generic | np.ndarray[Any, Any]", place: tuple[str | int, ...]) -> dict[str, Any]:
        if type(value) not in (np.ndarray, np.memmap) and not isinstance(value, np.generic):
            raise InputError(f"{_named(place)} is a {type(value).__name__}; wanted a plain NumPy array")
        if value.dtype.hasobject or value.dtype.names is not None or value.dtype.kind == "V":
            raise InputError(f"{_named(place)} is a NumPy array of {value.dtype}; wanted numbers or text")
        # A copy where it is not contiguous or not writable: torch warns of memory that it may not write.
        array = np.require(value, requirements=["C", "W"])
        raw = array.reshape(-1).view(np.uint8) if array.nbytes else np.empty(0, np.uint8)
        name = self._store(torch.from_numpy(raw), place)
        kind = "scalar" if isinstance(value, np.generic) else "array"
        return {kind: name, "dtype": array.dtype.str, "shape": list(value.shape)}

    def _store(self, tensor: torch.Tensor, place: tuple[str | int, ...]) -> str:
        """Keep a contiguous CPU tensor under a free name."""
        memory = tensor.untyped_storage()
        if memory.data_ptr() in self._memory or memory.nbytes() != tensor.numel() * tensor.element_size():
            tensor = tensor.clone()  # safetensors refuses two names for one memory
        elif memory.nbytes():
            self._memory.add(memory.data_ptr())
        # Names are for people who open the file; the tree is what counts. Metadata's own name is taken.
        text = "/".join(map(str, place)).encode("ascii", "replace").decode()
        text = text if text.isprintable() and text not in ("", "__metadata__") else "state"
        name, number = text, 1
        while name in self.tensors:
            number += 1
            name = f"{text}~{number}"
        self.tensors[name] = tensor
        self.checks[name] = _check_tensor(tensor)
        return name


def _named(place: tuple[str | int, ...]) -> str:
    return "state" + "".join(f"[{key!r}]" for key in place)


# ---- JSON to values ---------------------------------------------------------------------------------------------


def _decode(node: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(node, list):
        return [_decode(item, tensors) for item in node]
    if not isinstance(node, dict):
        return node
    kind = next(iter(node), "")
    content: Any = node.get(kind)
    if kind == "dict":
        return {_decode(key, tensors): _decode(item, tensors) for key, item in content}
    if kind == "tuple":
        return tuple(_decode(item, tensors) for item in content)
    if kind == "int":
        return int(content, 16)
    if kind == "float":
        return float(content)
    if kind == "bytes":
        return tensors[content].numpy().tobytes()
    if kind == "tensor":
        return _decode_tensor(tensors[content], node["dtype"], node["shape"], node.get("order"))
    if kind in ("array", "scalar"):
        dtype, shape = np.dtype(node["dtype"]), tuple(node["shape"])
        if dtype.hasobject:
            raise ValueError("an array of Python objects")
        raw = tensors[content].numpy()
        if math.prod(shape) * dtype.itemsize != raw.size:
            raise ValueError(f"an array of {dtype} {shape} has {raw.size} bytes")
        array = raw.view(dtype).reshape(shape) if raw.size else np.empty(shape, dtype)
        return array[()] if kind == "scalar" else array
    raise ValueError(f"a value of unknown kind {kind!r:.40}")


def _decode_tensor(tensor: torch.Tensor, dtype_name: str, shape: list[int], order: str | None) -> torch.Tensor:
    dtype = getattr(torch, dtype_name)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"no type {dtype_name!r:.40} in this torch")
    last = order == "channels_last"
    if dtype not in _NATIVE:
        tensor = tensor.view(dtype).reshape([shape[i] for i in (0, 2, 3, 1)] if last else shape)
    if last:
        tensor = tensor.permute(0, 3, 1, 2)
    if tensor.dtype != dtype or list(tensor.shape) != shape:
        raise ValueError(f"a tensor is {tensor.dtype} {list(tensor.shape)}, not {dtype} {shape}")
    return tensor
