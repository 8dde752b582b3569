"""Kang et al., Frontiers in Medicine 2021: StainNet, a network trained beforehand, as a colour map.

Three 1×1 convolutions see one pixel at a time, so the trained network is a colour map like any other: given its
weights, it is evaluated here in NumPy's float64, and compiled once. Training it is the work of another room. The paper
is "StainNet: a fast and robust stain normalization network".
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from restain.color.glass import PRIOR_WHITE
from restain.color.spaces import balance
from restain.errors import InputError
from restain.methods.base import Appearance, Floats, Icc, Normalizer, OnError

MOST_WEIGHTS, MOST_LAYERS = 100_000, 16
"""Most weights and layers that are believed (StainNet has 1,283 and 3): every colour goes through all of them, so a
damaged or hostile file could keep the machine busy for days."""


@dataclass(frozen=True, eq=False)
class GlassAppearance(Appearance):
    """The glass of a slide, which is all that a map given beforehand learns of it."""


@dataclass(eq=False, kw_only=True)
class StainNet(Normalizer):
    """A trained StainNet: the colours of one scanner in those of another, as its weights have it.

    The map is given beforehand: `fit` and `estimate` learn nothing but the glass, and `fit` may be left out: glass is
    then a neutral gray, as bright as the network makes it. That matters, because a network tints glass that was rare in
    its training, as the released weights do, visibly. With `background="match"` tissue stays what the network makes of
    it, up to the level of that glass; "keep" and "white" rescale it by their glass, as they do for every method; with
    "none" everything stays what the network makes of it.

    Attributes:
        weights: `weight1` (m, 3), `bias1` (m,), `weight2` (k, m), `bias2` (k,), ..., the last weight (3, k): the
            layers' weights, with ReLU between them, on levels scaled to −1..1. From a released file by
            `restain.released.read_stainnet`, or by `restain import`.
        luminosity: of no effect here: nothing is learned from tissue.
    """

    name: ClassVar[str] = "stainnet"
    appearance_type: ClassVar[type[Appearance]] = GlassAppearance
    fixed: ClassVar[bool] = True

    weights: Mapping[str, NDArray[np.float64]] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.background == "none":
            self.reference_ = GlassAppearance(np.full(3, 255.0), "assumed", 0.0)
        else:  # as bright as the network makes glass, in its brightest channel, and neutral: a guess must not tint
            level = float(self._evaluate(np.array([PRIOR_WHITE]), _affine).max())
            self.reference_ = GlassAppearance(np.full(3, level), "prior", 0.0)

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.weights is None:
            raise InputError("stainnet needs the weights of a trained network; restain import stainnet makes a file")
        self.weights = checked_weights(self.weights)

    def fit(self, reference: Any, *, icc: Icc = "keep", on_error: OnError = "stop") -> Self:
        """Learn the wanted glass; where the weights come from stays in the provenance."""
        origins = ("weights", "training", "distilled")
        weights = {name: value for name, value in self.provenance_.items() if name in origins}
        super().fit(reference, icc=icc, on_error=on_error)
        self.provenance_ = {**self.provenance_, **weights}
        return self

    def _restyle_levels(self, levels: Floats, appearance: Appearance, reference: Appearance) -> Floats:
        # The network was trained on levels as scanned, and gives levels as the target's scanner has them.
        return balance(self.evaluate(levels), reference.white_point)

    def evaluate(self, levels: NDArray[Any]) -> Floats:
        """The bare network on colours (n, 3) in 0..255: (n, 3) in 0..255, not rounded."""
        from restain.color import kernels

        return self._evaluate(levels, kernels.affine)

    def _evaluate(self, levels: NDArray[Any], affine: Callable[[Floats, Floats, Floats, bool], Floats]) -> Floats:
        assert self.weights is not None
        values = np.ascontiguousarray(np.asarray(levels, np.float64).T) / 127.5 - 1.0  # channels first
        last = len(self.weights) // 2
        for layer in range(1, last + 1):
            weight, bias = self.weights[f"weight{layer}"], self.weights[f"bias{layer}"]
            values = affine(values, weight, bias, layer < last)
        # A hostile file's weights may overflow; what is then no number is black.
        return np.clip(np.nan_to_num(values.T * 127.5 + 127.5, nan=0.0), 0.0, 255.0)


def _affine(channels: Floats, weight: Floats, bias: Floats, rectify: bool) -> Floats:
    """As `restain.color.kernels.affine`, for one colour, without importing Numba."""
    with np.errstate(over="ignore", invalid="ignore"):
        values: Floats = (weight[:, :, None] * channels[None]).sum(axis=1) + bias[:, None]
    return np.maximum(values, 0.0) if rectify else values


def checked_weights(weights: Any) -> dict[str, NDArray[np.float64]]:
    """Weights as float64 arrays in the order of the layers.

    Raises:
        InputError: they are not those of a chain of 1×1 convolutions from three channels to three.
    """
    if not isinstance(weights, Mapping) or not weights:
        raise InputError(f"got weights of type {type(weights).__name__}; wanted a mapping weight1, bias1, ...")
    layers = len(weights) // 2
    if layers > MOST_LAYERS:
        raise InputError(f"got weights of {layers} layers; wanted at most {MOST_LAYERS}")
    names = [f"{kind}{layer}" for layer in range(1, layers + 1) for kind in ("weight", "bias")]
    if sorted(names) != sorted(weights):
        raise InputError(f"got weights named {', '.join(map(str, weights))}; wanted {', '.join(names)}")
    # Copies, so that a later change of the caller's arrays changes nothing here.
    arrays = {name: np.array(weights[name], np.float64, order="C") for name in names}
    if (total := sum(array.size for array in arrays.values())) > MOST_WEIGHTS:
        raise InputError(f"got {total:,} weights; wanted at most {MOST_WEIGHTS:,}")
    channels = 3
    for layer in range(1, layers + 1):
        weight, bias = arrays[f"weight{layer}"], arrays[f"bias{layer}"]
        if weight.ndim != 2 or weight.shape[1] != channels or bias.shape != weight.shape[:1] or not bias.size:
            raise InputError(
                f"got weight{layer} of shape {weight.shape} with bias {bias.shape}; wanted (m, {channels}) and (m,)"
            )
        channels = len(weight)
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise InputError(f"layer {layer} of the weights is not finite")
    if channels != 3:
        raise InputError(f"the last layer of the weights has {channels} channels; wanted 3")
    return arrays
