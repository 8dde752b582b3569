"""An approximation of SCAN (Salvi et al., CMPB 2020), of which no code was published.

Salvi, Michielli & Molinari, "Stain Color Adaptive Normalization (SCAN) algorithm", Computer Methods and Programs in
Biomedicine 193; the abstract is all that is followed.

Nuclei, stroma and background are found; the stain vectors are the mean densities of nuclei and of stroma; strengths are
matched; the background keeps its colour. The paper segments nuclei by their shape, which a colour map cannot.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from restain.errors import InputError
from restain.methods.base import Floats, Unlearnable
from restain.methods.lasso import lasso
from restain.methods.stain_vectors import StainAppearance, StainNormalizer, order_stains
from restain.methods.statistics import weighted_mean

MOST_ROUNDS = 100  # of the clustering; real tiles rest long before


@dataclass(eq=False, kw_only=True)
class ScanApprox(StainNormalizer):
    """Stain vectors from two clusters of optical density, concentrations not negative, background left alone.

    Attributes:
        clusters: what is clustered: the "direction" of optical density, which is hue, each colour weighing as its
            density; or "density" itself, which splits dark from pale more than blue from pink, so that the vectors
            often come out too near each other to be told apart.
        bright: a colour is background if its darkest channel is above this share of glass ...
        colorless: ... and its channels differ by less than this share of glass. Both rules end softly, so that there
            is no edge: from wholly background to wholly tissue within `feather`.
        feather: the width of that transition, as a share of glass.
    """

    name: ClassVar[str] = "scan_approx"

    clusters: Literal["direction", "density"] = "direction"
    bright: float = 0.86
    colorless: float = 0.06
    feather: float = 0.06

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.clusters not in ("direction", "density"):
            raise InputError(f"got clusters={self.clusters!r}; wanted direction or density")
        for name in ("bright", "colorless", "feather"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"got {name}={getattr(self, name)}; wanted a share above 0 and up to 1")

    def _find_stains(self, density: Floats, counts: Floats) -> Floats:
        length = np.linalg.norm(density, axis=1)
        if self.clusters == "direction":
            nuclei = two_means(density / np.maximum(length, 1e-9)[:, None], counts * length)
        else:
            nuclei = two_means(density, counts)
        return order_stains(*(_mean(density, counts, part) for part in (nuclei, ~nuclei)))

    def _concentrations(self, density: Floats, matrix: Floats) -> Floats:
        return lasso(density, matrix, 0.0)

    def _restyle(self, colors: Floats, source: StainAppearance, reference: StainAppearance) -> Floats:
        weight = background_weight(colors / 255.0, self.bright, self.colorless, self.feather)[:, None]
        restyled = np.clip(super()._restyle(colors, source, reference), 0.0, 255.0)
        return weight * colors + (1.0 - weight) * restyled


def background_weight(shares: Floats, bright: float, colorless: float, feather: float) -> NDArray[np.float64]:
    """How much of a colour is background: 1 where bright and colourless, 0 in tissue, linear between.

    Args:
        shares: (n, 3), channels as shares of glass, 0..1.
        bright: least value of the darkest channel.
        colorless: largest difference of two channels.
        feather: by how much either may be missed.
    """
    darkest, brightest = shares.min(axis=1), shares.max(axis=1)
    is_bright = np.clip(1.0 - (bright - darkest) / feather, 0.0, 1.0)
    is_colorless = np.clip(1.0 - (brightest - darkest - colorless) / feather, 0.0, 1.0)
    weight: NDArray[np.float64] = np.minimum(is_bright, is_colorless)
    return weight


def two_means(points: Floats, counts: Floats) -> NDArray[np.bool_]:
    """Which of the points (n, 3) with counts (n,) belong to nuclei: k-means of two clusters, the bluer one.

    It starts from the halves above and below the mean red density, which hematoxylin absorbs and eosin does not, so
    the result does not depend on chance. Nuclei are the cluster with the larger mean red density.

    Raises:
        Unlearnable: one of two clusters is empty.
    """
    nuclei: NDArray[np.bool_] = points[:, 0] > (points[:, 0] * counts).sum() / counts.sum()
    for _ in range(MOST_ROUNDS):
        first, second = (_mean(points, counts, part) for part in (nuclei, ~nuclei))
        nearer: NDArray[np.bool_] = ((points - first) ** 2).sum(axis=1) < ((points - second) ** 2).sum(axis=1)
        if np.array_equal(nearer, nuclei):
            break
        nuclei = nearer
    first, second = (_mean(points, counts, part) for part in (nuclei, ~nuclei))
    return nuclei if first[0] >= second[0] else ~nuclei


def _mean(points: Floats, counts: Floats, part: NDArray[np.bool_]) -> Floats:
    if not counts[part].any():
        raise Unlearnable("the tissue has one cluster of densities, wanted nuclei and stroma")
    return weighted_mean(points[part], counts[part])
