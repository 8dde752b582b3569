"""A network made ready to be applied to many windows: the fastest forward pass that gives the same picture.

What helps depends on the hardware and is chosen by rule, never by timing, so that two runs on one machine agree:

- channels last in memory, which convolutions want on CPUs and GPUs alike;
- bfloat16 where the hardware multiplies it (AMX or AVX-512 BF16; GPUs since Ampere), when sample images show that the
  picture stays: 99.9 % of the pixels within one grey level of float32;
- in float32 on a CPU, wide 3 × 3 convolutions by Winograd's method (`restain.networks.winograd`), which differs by
  rounding; it is under the same check where there are samples.

Norm layers cost as much again as they seem to, because nothing can be fused across them: give the network with frozen
statistics folded in (`norm_statistics.folded`) where the images belong to one slide.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from restain.errors import InputError
from restain.networks.blocks import instance_norm_of
from restain.networks.winograd import use_winograd

Network = Callable[[Tensor], Tensor]

Precision = Literal["auto", "float32", "bfloat16"]

SAME_SHARE, SAME_LEVELS = 0.999, 1.0
"""Share of the pixels that must come within so many grey levels of float32, in their worst channel."""

LEVEL = 2 / 255
"""One grey level where images are −1..1."""


@dataclass(frozen=True, eq=False)
class FastNetwork:
    """What `fast` returns; call it on images.

    Attributes:
        network: the copy that is run. It is not to be trained.
        shape: (N, C, H, W) of every batch that it is given.
        device: where it runs.
        dtype: of the multiplications.
        description: one line that says what was chosen and why, for people and for provenance.
    """

    network: Network
    shape: tuple[int, int, int, int]
    device: torch.device
    dtype: torch.dtype
    description: str

    def __call__(self, images: Tensor) -> Tensor:
        """Restyle any number of images.

        They are run in batches of `shape` exactly, the last one filled up with zeros, so that an image's result does
        not depend on how many there are.

        Args:
            images: (N, C, H, W) floats of the network's own range, on any device; C, H and W those of `shape`.

        Returns:
            (N, C', H, W) float32, on the device of `images`.

        Raises:
            InputError: images of another size.
        """
        if images.ndim != 4 or images.shape[1:] != self.shape[1:] or not len(images):
            wanted = ", ".join(str(side) for side in self.shape[1:])
            raise InputError(f"got images of shape {tuple(images.shape)}; wanted (N, {wanted})")
        return _forward(self.network, images, self.shape[0], self.device, self.dtype)


def fast(
    network: nn.Module,
    shape: tuple[int, int, int, int],
    *,
    device: torch.device | str = "cpu",
    precision: Precision = "auto",
    samples: Tensor | None = None,
    level: float = LEVEL,
    winograd: bool = True,
    compile: bool = False,
) -> FastNetwork:
    """Make a network ready for inference on images of one size.

    Args:
        network: takes (N, C, H, W) and returns one tensor. It is copied, in evaluation mode, and left as it is; norm
            and dropout layers do in the copy what they do in evaluation mode (see `restain.networks.norm_statistics`).
        shape: (N, C, H, W) of a batch.
        device: where to run.
        precision: "auto" uses bfloat16 where the hardware has it and `samples` pass the check, else float32. A named
            precision is used unchecked.
        samples: (n, C, H, W) typical images, to check on. Without them "auto" is float32.
        level: one grey level of the network's results, 2/255 where they are −1..1.
        winograd: use Winograd's method where it helps: on a CPU in float32. With `samples` it is checked too.
        compile: use `torch.compile`, at the cost of a minute at the start; where that fails, for want of a C++ compiler
            say, the network is run without it, and the description says so.

    Raises:
        InputError: an unknown precision, samples of another size, or a device that is not there.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise InputError(f"got precision={precision!r}; wanted 'auto', 'float32' or 'bfloat16'")
    if samples is not None and samples.shape[1:] != shape[1:]:
        raise InputError(f"got samples of shape {tuple(samples.shape)}; wanted images of {shape[1:]}")
    place = _device(device)
    plain = copy.deepcopy(network).eval().requires_grad_(False).to(place)
    plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in PyTorch's own types
    if place.type == "cpu":
        _keep_channels_last(plain)
    notes = [place.type]

    def same_share(candidate: Network, dtype: torch.dtype) -> float | None:
        if samples is None:
            return None
        wanted = _forward(plain, samples, shape[0], place, torch.float32)
        return _share_of_same(_forward(candidate, samples, shape[0], place, dtype), wanted, level)

    chosen: Network = plain
    dtype = torch.float32
    if precision == "bfloat16":
        chosen, dtype = _in_bfloat16(plain), torch.bfloat16
    elif precision == "auto" and has_bfloat16(place):
        candidate = _in_bfloat16(plain)
        share = same_share(candidate, torch.bfloat16)
        if share is not None and share >= SAME_SHARE:
            chosen, dtype = candidate, torch.bfloat16
        else:
            notes.append(f"no bfloat16, which {_verdict(share)}")
    if winograd and dtype == torch.float32 and place.type == "cpu":
        candidate = copy.deepcopy(plain)
        count = use_winograd(candidate)
        share = same_share(candidate, torch.float32) if count else None
        if count and (share is None or share >= SAME_SHARE):
            chosen = candidate
            notes.append(f"{count} convolutions by Winograd's method")
        elif count:
            notes.append(f"no Winograd's method, which {_verdict(share)}")
    notes.insert(1, str(dtype).removeprefix("torch."))
    if compile:
        chosen, note = _compiled(chosen, shape, place, dtype)
        notes.append(note)
    return FastNetwork(chosen, shape, place, dtype, ", ".join(notes))


def has_bfloat16(device: torch.device | str) -> bool:
    """Whether the hardware multiplies bfloat16 faster than float32; emulation does not count."""
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind != "cpu":
        return False
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


@torch.inference_mode()
def _forward(network: Network, images: Tensor, batch: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The results of whole batches, one after another, where the images are."""
    results = []
    for part in torch.split(images, batch):
        ready = part.to(device, dtype, memory_format=torch.channels_last)
        if len(part) < batch:
            filled = torch.cat([ready, ready.new_zeros(batch - len(part), *part.shape[1:])])
            ready = filled.contiguous(memory_format=torch.channels_last)
        results.append(network(ready)[: len(part)].to(images.device, torch.float32))
    return torch.cat(results)


def _share_of_same(first: Tensor, second: Tensor, level: float = LEVEL) -> float:
    """Share of the pixels that lie within a grey level, once both are clamped to −1..1; nothing is near a NaN."""
    apart = (first.clamp(-1, 1) - second.clamp(-1, 1)).abs().amax(dim=1)
    return (apart <= SAME_LEVELS * level).float().mean().item()


def _verdict(share: float | None) -> str:
    if share is None:
        return "was not checked for want of samples"
    return f"left only {share:.2%} of the samples' pixels within {SAME_LEVELS:g} grey level"


def _keep_channels_last(network: nn.Module) -> None:
    """Replace PyTorch's instance norms, which give maps back with channels first, in place."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.InstanceNorm2d) and child.running_mean is None:
                module._modules[name] = instance_norm_of(child)


class _InFloat32(nn.Module):
    """A layer of a bfloat16 network that is run in float32."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = self.layer(maps.float())
        return out


def _in_bfloat16(network: nn.Module) -> nn.Module:
    """A copy that multiplies bfloat16, but for the statistics of norms, which would lose digits, and the last layer.

    The last layer's results are the picture: rounded to the 8 bits of bfloat16 they would be off by up to half a level.
    """
    converted = copy.deepcopy(network)
    weighted = [
        (parent, name, child)
        for parent in converted.modules()
        for name, child in parent.named_children()
        if isinstance(child, _ConvNd | nn.Linear)
    ]
    kept = {id(module) for module in converted.modules() if isinstance(module, _NormBase)}
    if weighted:
        parent, name, last = weighted[-1]
        parent._modules[name] = _InFloat32(last)
        kept.add(id(last))
    for module in converted.modules():
        if id(module) not in kept:
            for value in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                if value.is_floating_point():
                    value.data = value.data.to(torch.bfloat16)
    return converted


def _compiled(
    network: Network, shape: tuple[int, int, int, int], device: torch.device, dtype: torch.dtype
) -> tuple[Network, str]:
    """The network compiled, or itself where that fails, and a note which."""
    compiled = torch.compile(network, dynamic=False)
    try:
        _forward(compiled, torch.zeros(shape), shape[0], device, dtype)
    except Exception as error:  # whatever goes wrong in there, the network itself still runs
        return network, f"not compiled ({type(error).__name__})"
    return compiled, "compiled"


def _device(device: torch.device | str) -> torch.device:
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"got device={str(device)!r}, which is not there: {str(error).splitlines()[0]}") from error
    return place
