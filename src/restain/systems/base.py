"""The contract of systems: normalizers that are trained, and what the training loop and the slides ask of them.

A system holds its networks as plain attributes. What it computes between reading tiles and writing weights is in one
file for each paper: networks, losses, order of updates, settings with the paper's defaults, how it normalizes.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from restain import files
from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8, as_rgb8
from restain.errors import FitError, InputError, NotFittedError
from restain.methods.base import Appearance, Icc, Normalizer, OnError
from restain.methods.saving import to_arrays
from restain.networks.inference import fast, has_bfloat16
from restain.networks.norm_statistics import collect, folded, has_norms, per_image, running
from restain.networks.norm_statistics import frozen as frozen_norms
from restain.systems.config import SystemConfig, make_settings, plain
from restain.systems.engine import Engine
from restain.systems.frozen import unwrapped
from restain.systems.windows import NetworkWindows, choose_device, image_tiles, pad_to_multiple, to_tensor


@dataclass(frozen=True, eq=False)
class NetworkAppearance(Appearance):
    """How a slide looks to a network.

    Attributes:
        statistics: whose means and variances the network's norm layers use: "image", of every image or window by
            itself, as the papers' tables have it; "slide", measured once on tiles of the slide and frozen, so that
            neighbouring windows agree; "training", what was learned; "none", there are no norm layers.
        norm_statistics: for "slide": means and variances of all norm layers in order, (2, channels); else None.
        precision: what windows are computed in: "float32", or "bfloat16" where the hardware has it and the tiles that
            the statistics were measured on came out within a grey level (99.9 % of their pixels).
    """

    long_fields: ClassVar[tuple[str, ...]] = ("icc_profile", "norm_statistics")

    statistics: str = "image"
    norm_statistics: NDArray[np.float64] | None = None
    precision: str = "float32"


@dataclass(eq=False, kw_only=True)
class System(Normalizer):
    """Base of all systems.

    Attributes:
        config: the system's settings: its `config_type`, or a mapping of some of its fields; None for the defaults.
        trainable: whether the networks that only training needs are made too.
        generator: the network that normalizes.
        luminosity: of no effect here: nothing is learned from a slide's colours but its white point.
    """

    appearance_type: ClassVar[type[Appearance]] = NetworkAppearance
    fixed: ClassVar[bool] = True
    neighbourhood: ClassVar[bool] = True
    statistics_tiles: ClassVar[int] = 16
    statistics_side: ClassVar[int] = 256

    config_type: ClassVar[type[SystemConfig]]
    domains: ClassVar[tuple[str, ...]] = ("source", "target")
    """What a batch holds."""
    paired: ClassVar[bool] = False
    """Whether source and target of a batch must show the same tissue."""
    accumulates: ClassVar[bool] = True
    """Whether gradients of several batches may be added up before the optimizers step."""
    window: ClassVar[int] = 512
    """Side of the windows that slides and large images are normalized in, pixels."""
    overlap: ClassVar[int] = 64
    """Pixels that neighbouring windows share (PAPERS §9: 64 or more)."""

    config: Any = None
    trainable: bool = field(default=True, repr=False)
    generator: nn.Module = field(init=False, repr=False)
    optimizers: dict[str, Optimizer] = field(default_factory=dict, init=False, repr=False)
    device: str = field(default="auto", init=False, repr=False)
    precision: str = field(default="auto", init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.config is None or isinstance(self.config, Mapping):
            self.config = make_settings(self.config_type, self.config or {}, f"the settings of {self.name}")
        if not isinstance(self.config, self.config_type):
            raise InputError(f"got a config of {type(self.config).__name__}; wanted {self.config_type.__name__}")
        self.make_networks()

    # ---- what a system says of itself -------------------------------------------------------------------------

    def make_networks(self) -> None:
        """Make the networks, with their initial weights, as attributes; only those of use where not `trainable`."""
        raise NotImplementedError

    def networks(self) -> dict[str, nn.Module]:
        """All networks by the names of their attributes."""
        raise NotImplementedError

    def make_optimizers(self) -> dict[str, Optimizer]:
        """New optimizers, by name."""
        raise NotImplementedError

    def update(self, batch: Mapping[str, Tensor], engine: Engine) -> dict[str, Tensor]:
        """One update of every network, in the paper's order.

        Args:
            batch: for each of `domains`, images (N, 3, crop, crop) in 0..1; with the setting `input_augmentation`
                "source_input" and "target_input", too, and where there are labels "target_label".
            engine: precision, gradients and processes.

        Returns:
            Scalars by name, detached: what is logged.
        """
        raise NotImplementedError

    def validation_loss(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        """The scalar whose least value the best weights have; None where the paper takes the last."""
        return None

    def deployed(self) -> nn.Module:
        """The generator itself, in the mode that it is in, with what comes before and after it: images (N, 3, H, W) in
        0..1 to the same. `inference_network` is what normalizes."""
        raise NotImplementedError

    @property
    def multiple(self) -> int:
        """What the sides of the generator's input must be multiples of."""
        return int(unwrapped(self.generator).multiple)  # type: ignore[arg-type]

    @property
    def least_side(self) -> int:
        """The least sides of the generator's input, pixels."""
        return self.multiple

    @property
    def learned_statistics(self) -> bool:
        """Whether norm layers keep the running statistics of training when they normalize, as batch norms in evaluation
        mode do; else they take those of each image, or of a slide."""
        return False

    @property
    def own_statistics(self) -> str:
        """Whose norm statistics are used where none of a slide are frozen; see `NetworkAppearance`."""
        if not has_norms(self.generator):
            return "none"
        return "training" if self.learned_statistics else "image"

    @property
    def labelled(self) -> bool:
        """Whether labels of the target are learned from: batches then hold "target_label", (N,) int64, −1 where nobody
        knows, and `config.task_classes` says how many classes there are."""
        return False

    def content_descriptor(self) -> Callable[[Tensor], Tensor] | None:
        """What describes the content of images, (N, 3, H, W) in 0..1 to (N, D): where images are paired by content, the
        nearest are. None for histograms of gray and the share of tissue."""
        return None

    @property
    def caveats(self) -> tuple[str, ...]:
        """What must be said of a training with these settings: shown when it starts, and kept with the weights."""
        return ()

    def normalizer(self) -> Normalizer:
        """What a training leaves to be used: the system itself, or a colour map where it is one."""
        return self

    # ---- what a training tells it -----------------------------------------------------------------------------

    def begin_epoch(self, epoch: int) -> None:
        """Called before the batches of each epoch, counted from 0, and again where a run is resumed within it."""

    # ---- the state of a training ------------------------------------------------------------------------------

    def training_state(self) -> dict[str, Any]:
        """Everything beside networks and optimizers that the next update depends on (image pools)."""
        return {}

    def load_training_state(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from a `training_state`."""

    # ---- the verbs of a normalizer ----------------------------------------------------------------------------

    def fit(self, reference: Any, *, icc: Icc = "keep", on_error: OnError = "stop") -> Self:
        """Not to be called: a system learns its appearance by training.

        Raises:
            FitError: always; the message has the command.
        """
        options = " ".join(f"--{domain} FOLDER" for domain in self.domains)
        raise FitError(f"{self.name} is not fitted but trained: restain train {self.name} {options} -o RUN")

    def finish(self, white: Sequence[float], origin: str, provenance: Mapping[str, Any]) -> Self:
        """Make a trained system a normalizer: what glass looks like in its target domain, and where it comes from.

        Args:
            white: (3,) level of the target's glass, 0..255.
            origin: "glass" where it was measured, "prior" where no glass was seen.
            provenance: plain facts on the training and its data, to be kept with the weights.

        Raises:
            InputError: `white` is no colour.
        """
        level = np.array(white, np.float64)
        if level.shape != (3,) or not ((level >= 0) & (level <= 255)).all():
            raise InputError(f"got the white point {white}; wanted three levels in 0..255")
        if self.background == "none":
            level, origin = np.full(3, 255.0), "assumed"
        self.reference_ = NetworkAppearance(level, origin, 0.0)
        self.provenance_ = dict(provenance)
        return self

    def estimate(
        self,
        source: Any,
        *,
        tiles: Sequence[RGB8] | None = None,
        icc: Icc = "keep",
        on_error: OnError = "stop",
    ) -> Appearance:
        """The white point of a slide or image, and from `tiles` of a slide the statistics of the norm layers.

        Args:
            source: as for `Normalizer.estimate`.
            tiles: square tiles of tissue, (side, side, 3) uint8; empty to take every window's own statistics. None to
                choose them from what a path names; of what is in memory it is as empty.
            icc, on_error: as for `Normalizer.estimate`; of the tiles as of the colours.
        """
        if tiles is None and isinstance(source, (str, os.PathLike)):
            # Paths are resolved above this room, where slides are known.
            from restain.references import sample_statistics_tiles

            count, side = self.statistics_tiles, self.statistics_side
            tiles = sample_statistics_tiles(source, count, side, icc=icc, on_error=on_error)
        appearance = super().estimate(source, icc=icc, on_error=on_error)
        assert isinstance(appearance, NetworkAppearance)
        appearance = replace(appearance, statistics=self.own_statistics, norm_statistics=None)
        return appearance if tiles is None or not len(tiles) else self.with_statistics(appearance, tiles)

    def estimate_image(self, image: Any, *, histogram: ColorHistogram | None = None) -> Appearance:
        """How an image looks by itself: one that fits into a window gets its own statistics when it is normalized, as
        the papers' tiles do; a larger one those of tiles of it, so that its windows agree."""
        pixels = as_rgb8(image)
        appearance = self.estimate(ColorHistogram.from_image(image) if histogram is None else histogram)
        if max(pixels.shape[:2]) <= self.window:
            return appearance
        tiles = image_tiles(pixels, appearance.white_point, self.statistics_tiles, self.statistics_side)
        return self.with_statistics(appearance, tiles) if tiles else appearance

    def with_statistics(self, appearance: Appearance, tiles: Sequence[RGB8]) -> Appearance:
        """The appearance with the norm layers' statistics on `tiles`, frozen layer by layer (PAPERS §9 b).

        Raises:
            InputError: tiles of different sizes.
        """
        network, device = self.deployed(), choose_device(self.device)
        pixels = [as_rgb8(tile) for tile in tiles]
        if len(sizes := {tile.shape[:2] for tile in pixels}) > 1:
            raise InputError(f"got tiles of different sizes ({sorted(sizes)}); wanted all alike")
        images = to_tensor(np.stack(pixels)).to(device)
        assert isinstance(appearance, NetworkAppearance)
        if has_norms(network) and not self.learned_statistics:
            statistics = collect(network.to(device), pad_to_multiple(images, self.multiple, self.least_side))
            appearance = replace(appearance, statistics="slide", norm_statistics=statistics)
        return replace(appearance, precision=self._precision_for(appearance, images[:4], device))

    def _precision_for(self, appearance: Appearance, images: Tensor, device: torch.device) -> str:
        """bfloat16 where the hardware has it and these images, (N, 3, H, W) in 0..1, come out the same."""
        if self.precision == "float32" or not has_bfloat16(device):
            return "float32"
        images = pad_to_multiple(images, self.multiple, self.least_side)
        network = folded(self.inference_network(appearance))
        shape = (len(images), *images.shape[1:])
        made = fast(network, shape, device=device, samples=images, level=1 / 255)
        return str(made.dtype).removeprefix("torch.")

    def inference_network(self, appearance: Appearance) -> nn.Module:
        """`deployed`, with the norm layers as this appearance has it; shares the weights, so that it costs nothing."""
        network = self.deployed()
        if self.learned_statistics:
            return frozen_norms(network, running(network))
        statistics = getattr(appearance, "norm_statistics", None)
        return per_image(network) if statistics is None else frozen_norms(network, statistics)

    def pixel_map(self, appearance: Appearance, *, lazy: bool = False, workers: int | None = None) -> NetworkWindows:
        """What maps the windows of this slide; `lazy` and `workers` are of no effect."""
        self._check_appearance(appearance)
        return NetworkWindows(self, appearance)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Write the generator, settings, target and provenance as one safetensors file; `restain.load` reads it."""
        arrays, values = to_arrays(self._fitted())
        weights = unwrapped(self.generator).state_dict()
        arrays |= {f"generator.{name}": value.detach().float().cpu().numpy() for name, value in weights.items()}
        facts = {
            "system": self.name,
            "settings": self.settings(),
            "reference": values,
            "provenance": dict(self.provenance_),
        }
        files.save_arrays(path, "system", arrays, facts, overwrite=overwrite)

    def _settings(self) -> dict[str, Any]:
        return {"background": self.background, "config": plain(self.config)}

    def _fitted(self) -> Appearance:
        if self.reference_ is None:
            raise NotFittedError(f"{self.name} is not trained; restain train {self.name} trains it")
        return self.reference_

    def _step(self, name: str) -> None:
        self.optimizers[name].step()
        self.optimizers[name].zero_grad()

    def __eq__(self, other: object) -> bool:
        equal = super().__eq__(other)
        if equal is not True:  # "not implemented", for another type
            return equal
        assert isinstance(other, System)
        own, others = (unwrapped(system.generator).state_dict() for system in (self, other))
        return own.keys() == others.keys() and all(torch.equal(own[name].cpu(), others[name].cpu()) for name in own)

    __hash__ = None
