"""Ruifrok & Johnston, "Quantification of histochemical staining by color deconvolution", 2001, as a normalizer.

The stain vectors are fixed and known; only each stain's strength is measured and matched.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from restain.errors import InputError
from restain.methods.base import Floats
from restain.methods.flavours import TIATOOLBOX, StainFlavour, check_flavour
from restain.methods.stain_vectors import DAB, RUIFROK_HE, WARWICK_HE, StainNormalizer, published_statistics, unit_rows

STAIN_MATRICES: dict[str, Floats] = {
    "he": RUIFROK_HE,
    "he-warwick": WARWICK_HE,
    "hdab": np.stack([RUIFROK_HE[0], DAB]),
    "hed": np.stack([*RUIFROK_HE, DAB]),
}
"""Published vectors by name, hematoxylin first. With two stains, the rest is the vector at right angles to both."""


@dataclass(eq=False, kw_only=True)
class Ruifrok(StainNormalizer):
    """Deconvolve with known stain vectors, C = OD·M⁻¹, match each stain's strength, rebuild with the same vectors.

    Attributes:
        flavour: "restain", or "tiatoolbox": as that package computes it, with two stains.
        stains: a name in `STAIN_MATRICES`, or two or three rows of optical density, of any length.
        off_plane: of no effect here: the vectors are given, so every stained colour counts for the strengths.
    """

    name: ClassVar[str] = "ruifrok"

    flavour: Literal["restain", "tiatoolbox"] = "restain"
    stains: Any = "he"

    def _check_settings(self) -> None:
        super()._check_settings()
        stain_rows(self.stains)
        if not isinstance(self.stains, str):
            self.stains = np.asarray(self.stains, np.float64).tolist()  # one form, to be saved and compared
        check_flavour(self, ("tiatoolbox",), free=("stains",))

    def _as_package(self) -> StainFlavour | None:
        return TIATOOLBOX if self.flavour == "tiatoolbox" else None

    def stain_matrix(self) -> Floats:
        """The (2, 3) or (3, 3) unit rows that the setting `stains` names."""
        return stain_rows(self.stains)

    def _find_stains(self, density: Floats, counts: Floats) -> Floats:
        return self.stain_matrix()

    def _near_stains(self, density: Floats, counts: Floats) -> NDArray[np.bool_]:
        # A lab's stains lie off the plane of published vectors; to leave them out would measure the few that do not.
        return np.ones(len(density), np.bool_)

    def _default_statistics(self) -> dict[str, Any]:
        return published_statistics(self.stain_matrix())

    def _unmixing(self, matrix: Floats) -> Floats:
        return np.asarray(np.linalg.inv(completed(matrix))[:, : len(matrix)], np.float64)


def stain_rows(stains: Any) -> Floats:
    """The (2, 3) or (3, 3) unit rows of optical density that `stains` means.

    Args:
        stains: a name in `STAIN_MATRICES`, or two or three rows of R, G, B densities, of any length.

    Raises:
        InputError: there is no such name, or the rows are no densities or not independent.
    """
    if isinstance(stains, str):
        if stains not in STAIN_MATRICES:
            raise InputError(f"got stains={stains!r}; wanted one of {', '.join(STAIN_MATRICES)}, or vectors")
        return unit_rows(STAIN_MATRICES[stains])
    try:
        rows = np.asarray(stains, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"got stains={stains!r}; wanted a name, or rows of R, G, B densities") from None
    if rows.shape not in ((2, 3), (3, 3)) or not np.isfinite(rows).all():
        raise InputError(f"got stain vectors of shape {rows.shape}; wanted two or three rows of R, G, B densities")
    if (np.linalg.norm(rows, axis=1) < 1e-6).any() or np.linalg.matrix_rank(rows) < len(rows):
        raise InputError("the stain vectors are zero or not independent; they cannot be told apart")
    return unit_rows(rows)


def completed(matrix: Floats) -> Floats:
    """Two stains with their unit cross product as the third row; three as they are."""
    if len(matrix) == 3:
        return matrix
    return np.vstack([matrix, unit_rows([np.cross(matrix[0], matrix[1])])])
