"""A lattice of colours, given beforehand, with trilinear interpolation between its points: a 3D LUT or .cube file.

Any map of colours comes near to one: grading programs exchange them as .cube files, and
`restain.color.regression.fit_lattice` fits one to what another normalizer, a network too, made of pictures.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from restain.color.glass import PRIOR_WHITE
from restain.color.spaces import balance
from restain.color.trilinear import interpolate
from restain.errors import FormatError, InputError
from restain.methods.base import Appearance, Background, Floats, Icc, Normalizer, OnError
from restain.methods.saving import LARGEST
from restain.methods.stainnet import GlassAppearance

SIZES = range(2, 66)
"""Points along a side that are believed; 65 lie four levels apart, and take 7 MB."""


@dataclass(eq=False, kw_only=True)
class Lattice(Normalizer):
    """A map of colours as an n³ lattice of levels, trilinear between its points.

    The map is given beforehand: `fit` and `estimate` learn nothing but the glass, and `fit` may be left out: glass is
    then a neutral gray, as bright as the lattice makes it. With `background="match"` tissue stays what the lattice
    makes of it, up to the level of that glass; "keep" and "white" rescale it by their glass, as they do for every
    method; with "none" everything, glass too, stays what the lattice makes of it.

    Attributes:
        table: one array, `levels` (n, n, n, 3), n in 2..65: what the colour (255·i/(n−1), 255·j/(n−1), 255·k/(n−1))
            becomes stands at [i, j, k]. Levels outside 0..255 are allowed; results are clipped.
        luminosity: of no effect here: nothing is learned from tissue.

    Example:
        >>> import numpy as np
        >>> corners = np.stack(np.meshgrid([0, 255], [0, 255], [0, 255], indexing="ij"), axis=-1)
        >>> negative = Lattice(table={"levels": 255 - corners}, background="none")
        >>> negative.transform(np.array([[[0, 100, 255]]], np.uint8)).tolist()
        [[[255, 155, 0]]]
    """

    name: ClassVar[str] = "lattice"
    appearance_type: ClassVar[type[Appearance]] = GlassAppearance
    fixed: ClassVar[bool] = True

    table: Mapping[str, NDArray[np.float64]] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.background == "none":
            self.reference_ = GlassAppearance(np.full(3, 255.0), "assumed", 0.0)
        else:  # as bright as the lattice makes glass, in its brightest channel, and neutral: a guess must not tint
            level = float(np.clip(interpolate(self.levels, np.array([PRIOR_WHITE])), 0.0, 255.0).max())
            self.reference_ = GlassAppearance(np.full(3, level), "prior", 0.0)

    @classmethod
    def from_cube(cls, path: str | os.PathLike[str], reference: Any = None, background: Background = "match") -> Self:
        """The map of a .cube file, with the file's digest in its provenance.

        Args:
            path: see `restain.color.cube.load_cube`; with at most 65 points along a side.
            reference: whose glass the results shall have, as for `fit`; None for a neutral gray.
            background: what becomes of glass; "none" for what the file says and nothing else.

        Raises:
            FormatError: the file is missing, damaged, no 3D table, or larger than a lattice may be.
        """
        from restain.color.cube import load_cube

        levels = load_cube(path)
        if len(levels) not in SIZES:
            raise FormatError(f"{path} has {len(levels)} points along a side; wanted at most {SIZES[-1]}")
        lattice = cls(table={"levels": levels}, background=background)
        if reference is not None:
            lattice.fit(reference)
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        lattice.provenance_ = {**lattice.provenance_, "table": {"sha256": digest}}
        return lattice

    @property
    def levels(self) -> Floats:
        """(n, n, n, 3): the table's array."""
        assert self.table is not None
        return self.table["levels"]

    def fit(self, reference: Any, *, icc: Icc = "keep", on_error: OnError = "stop") -> Self:
        """Learn the wanted glass; where the table comes from stays in the provenance."""
        kept = {name: value for name, value in self.provenance_.items() if name in ("table", "distilled")}
        super().fit(reference, icc=icc, on_error=on_error)
        self.provenance_ = {**self.provenance_, **kept}
        return self

    def evaluate(self, levels: NDArray[Any]) -> Floats:
        """The bare map on colours (n, 3) in 0..255: (n, 3) in 0..255, not rounded."""
        from restain.color import kernels

        made: Floats = kernels.trilinear(self.levels, np.ascontiguousarray(levels, np.float64))
        return np.clip(made, 0.0, 255.0)

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.table is None:
            raise InputError("lattice needs a table of levels: from a .cube file, by Lattice.from_cube, or distilled")
        self.table = checked_table(self.table)

    def _restyle_levels(self, levels: Floats, appearance: Appearance, reference: Appearance) -> Floats:
        # The lattice maps levels as scanned, and gives levels as the target's scanner has them.
        return balance(self.evaluate(levels), reference.white_point)


def checked_table(table: Any) -> dict[str, NDArray[np.float64]]:
    """A table as one float64 array, copied, so that a later change of the caller's changes nothing here.

    Raises:
        InputError: it is not a mapping with `levels` alone, (n, n, n, 3), n in 2..65, finite and not huge.
    """
    if not isinstance(table, Mapping) or set(table) != {"levels"}:
        got = f"names {', '.join(map(str, table))}" if isinstance(table, Mapping) else f"type {type(table).__name__}"
        raise InputError(f"got a table of {got}; wanted a mapping with levels alone")
    levels = np.array(table["levels"], np.float64, order="C")
    side = len(levels) if levels.ndim else 0
    if levels.shape != (side, side, side, 3) or side not in SIZES:
        raise InputError(f"got levels of shape {levels.shape}; wanted (n, n, n, 3) with n in 2..{SIZES[-1]}")
    if not (np.abs(levels) <= LARGEST).all():  # NaN fails too
        raise InputError(f"levels are not finite, or beyond ±{LARGEST:.0e}")
    return {"levels": levels}
