"""What registering a pair gives: made once per raw pair, saved, and used for every method that is compared."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restain.color.images import RGB8, as_rgb8
from restain.errors import FormatError, InputError
from restain.evaluation.registration.contrast import Mask
from restain.evaluation.registration.flow import STEP, Flow, Positions, find_positions
from restain.evaluation.registration.opencv import LONGEST_SIDE, opencv
from restain.evaluation.registration.quality import Quality
from restain.evaluation.registration.settings import RegistrationSettings
from restain.evaluation.registration.shift import Matrix
from restain.files import load_arrays, save_arrays

KIND = "registration"


@dataclass(frozen=True, eq=False)
class Registration:
    """How a target lies over a source. The source's pixels stay untouched; the target is warped into its frame.

    A pixel (x, y) of the source shows what the target shows at `matrix` · (x + fx, y + fy, 1), with (fx, fy) = `flow`.
    """

    matrix: Matrix
    """(2, 3) affine map from source to target pixels, float64."""
    flow: Flow
    """(h, w, 2) x and y displacement, source pixels, at every fourth pixel, float32; straight in between."""
    mask: Mask
    """(H, W) which pixels of the source may be compared: covered by the target, and away from all borders."""
    target_size: tuple[int, int]
    """(width, height) of the target."""
    quality: Quality
    """Figures of the raw pair over the mask."""
    reason: str
    """Why the pair is rejected, in a few words; empty where it is accepted."""
    settings: RegistrationSettings
    """How it was registered."""
    made_from: str = ""
    """SHA-256 digest of the files it was made from, as `restain register` keeps it; empty where none was given."""

    @property
    def accepted(self) -> bool:
        """Whether the pair lies together well enough to compare pixels."""
        return not self.reason

    @property
    def source_size(self) -> tuple[int, int]:
        """(width, height) of the source, which is that of warped targets."""
        return self.mask.shape[1], self.mask.shape[0]

    def positions(self) -> Positions:
        """Where in the target each pixel of the source is shown: (H, W, 2) float32, x and y."""
        return find_positions(self.matrix, self.flow, self.source_size)

    def warp(self, image: Any) -> RGB8:
        """The target, or another picture in its frame, as the source sees it.

        Args:
            image: (h, w, 3) uint8, of the target's size; gray, RGBA and floats as everywhere.

        Returns:
            (H, W, 3) uint8 by bicubic interpolation, which blurs least; white outside the target.

        Raises:
            InputError: the picture has another size.
        """
        cv2 = opencv()
        pixels = np.ascontiguousarray(as_rgb8(image))
        self._check_size(pixels)
        warped: RGB8 = cv2.remap(
            pixels, self.positions(), None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT, borderValue=(255, 255, 255)
        )
        return warped

    def warp_labels(self, labels: NDArray[Any]) -> NDArray[Any]:
        """A mask or label image (h, w) of the target as the source sees it: nearest values, 0 outside, (H, W)."""
        self._check_size(labels)
        nearest = np.rint(self.positions()).astype(np.int64)
        x, y = nearest[..., 0], nearest[..., 1]
        inside = (x >= 0) & (y >= 0) & (x < self.target_size[0]) & (y < self.target_size[1])
        out = np.zeros(self.mask.shape, labels.dtype)
        out[inside] = labels[y[inside], x[inside]]
        return out

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Write to one safetensors file, from which `load` makes an equal registration."""
        arrays: dict[str, NDArray[Any]] = {"matrix": self.matrix, "flow": self.flow, "mask": np.packbits(self.mask)}
        facts = {
            "source_size": list(self.source_size),
            "target_size": list(self.target_size),
            "quality": asdict(self.quality),
            "reason": self.reason,
            "settings": asdict(self.settings),
            "made_from": self.made_from,
        }
        save_arrays(path, KIND, arrays, facts, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Registration":
        """Read what `save` wrote.

        Raises:
            FormatError: the file is missing or damaged, or holds something else.
        """
        kind, arrays, facts = load_arrays(path)
        if kind != KIND:
            raise FormatError(f"{os.fspath(path)} holds a {kind}; wanted a registration")
        try:
            return _from_file(arrays, facts)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise FormatError(f"{os.fspath(path)} is a damaged registration ({error})") from None

    def _check_size(self, picture: NDArray[Any]) -> None:
        size = (picture.shape[1], picture.shape[0])
        if size != self.target_size:
            raise InputError(
                f"got a picture of {size[0]}x{size[1]}; wanted {self.target_size[0]}x{self.target_size[1]}, "
                "the size of the target that was registered"
            )


def _from_file(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> Registration:
    width, height = (int(side) for side in facts["source_size"])
    wide, tall = (int(side) for side in facts["target_size"])
    if not all(1 <= side <= LONGEST_SIDE for side in (width, height, wide, tall)):
        raise ValueError("impossible sizes")
    matrix, flow = arrays["matrix"].astype(np.float64), arrays["flow"].astype(np.float32)
    nodes = (-(-(height - 1) // STEP) + 1, -(-(width - 1) // STEP) + 1, 2)
    if matrix.shape != (2, 3) or flow.shape != nodes or not (np.isfinite(matrix).all() and np.isfinite(flow).all()):
        raise ValueError("matrix or flow of an unfitting shape")
    mask = np.unpackbits(arrays["mask"], count=width * height).reshape(height, width).astype(np.bool_)
    known = {field.name for field in fields(RegistrationSettings)}
    settings = RegistrationSettings(**{name: value for name, value in facts["settings"].items() if name in known})
    quality, reason, made_from = Quality(**facts["quality"]), str(facts["reason"]), str(facts.get("made_from", ""))
    return Registration(matrix, flow, mask, (wide, tall), quality, reason, settings, made_from)
