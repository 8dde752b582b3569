"""Zheng et al., CMPB 2019: stain vectors and weights found together by gradient descent.

It goes down on four wishes: little that the stains do not explain, few pixels with both stains, a given balance of the
stains, and a given overall strength. The paper is "Adaptive color deconvolution for histological WSI normalization",
Computer Methods and Programs in Biomedicine 170.
"""

import operator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from restain.color.histogram import ColorHistogram
from restain.color.spaces import apply_matrix, density_to_rgb, rgb_to_density
from restain.errors import InputError
from restain.methods.base import Appearance, Floats, Normalizer, Unlearnable
from restain.methods.stain_vectors import angle_between

START_ANGLES: Floats = np.array([[0.294, 0.110, 0.894], [0.750, 0.088, 0.425]])
"""α and β, radians, that the descent starts from: Ruifrok & Johnston's hematoxylin, eosin and DAB."""

DENSITIES = (0.3, 2.144)
"""Mean optical densities, natural log, between which a colour counts as stained; the authors' 0.3 is the end of
background, the upper one of pen and folds."""

FIRST_ACCUMULATOR = 0.1
"""What Adagrad's sums of squared gradients start from: the default of the framework that the authors used."""

LEAST_ANGLE = 5.0
"""Degrees; stain vectors that came nearer than this are one stain."""

MOST_CONDITION = 50.0
"""Condition number of the stain matrix above which separating amplifies noise more than any stain is worth."""

WEIGHT_LIMITS = (0.1, 10.0)
"""Weights that are believed; beyond, one of the stains does not occur and its noise would be blown up to colour."""


MOST_WEIGHT = 1000.0
WHOLE_NUMBERS = {"samples": (1, 10_000_000), "steps": (0, 100_000), "batch": (1, 1_000_000), "seed": (0, 2**63 - 1)}
"""What settings may be: a saved file must not keep the machine busy for days, or make numbers overflow."""


@dataclass(frozen=True, eq=False, kw_only=True)
class AdaptiveAppearance(Appearance):
    """Stain vectors and weights.

    Attributes:
        stain_matrix: (3, 3), unit rows of optical density: hematoxylin, eosin, the rest.
        weights: (3,), what each stain's concentration is multiplied by to have the common strength; 1 for the rest.
        loss: what the descent ended with, 0 or above.
    """

    stain_matrix: Floats
    weights: Floats
    loss: float

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return super()._shapes() | {"stain_matrix": (3, 3), "weights": (3,)}

    def _check_values(self) -> None:
        super()._check_values()
        if not (self.weights > 0).all() or np.linalg.cond(self.stain_matrix) > MOST_CONDITION:
            raise ValueError("stains that cannot be told apart")


@dataclass(eq=False, kw_only=True)
class ACD(Normalizer):
    """Adaptive colour deconvolution: OD' = OD·(D_s·w_s)·(D_t·w_t)⁻¹, with D the inverse of the stain matrix.

    Colours are drawn by their counts, from a fixed order and with a fixed seed, so the same slide always gives the
    same result, however it was cut or counted.

    Attributes:
        correlation: λ_p, the weight of "few pixels with both stains".
        balance: λ_b, the weight of the balance of the stains.
        strength: λ_e, the weight of the overall strength.
        eta: η, the share of hematoxylin that is aimed for.
        gamma: γ, the mean of the weighted concentrations that is aimed for.
        samples: pixels that the descent draws its batches from.
        steps: of the descent.
        batch: pixels a step.
        learning_rate: of Adagrad.
        seed: of the sample.
        luminosity: 0.9: what is lighter is glass; of the rest, `DENSITIES` chooses.
    """

    name: ClassVar[str] = "acd"
    appearance_type: ClassVar[type[Appearance]] = AdaptiveAppearance

    correlation: float = 0.002
    balance: float = 10.0
    strength: float = 1.0
    eta: float = 0.6
    gamma: float = 0.5
    samples: int = 100_000
    steps: int = 300
    batch: int = 1500
    learning_rate: float = 0.05
    seed: int = 0
    luminosity: float | None = 0.9

    def _check_settings(self) -> None:
        super()._check_settings()
        for name in ("correlation", "balance", "strength"):
            if not 0 <= getattr(self, name) <= MOST_WEIGHT:
                raise InputError(f"got {name}={getattr(self, name)}; wanted a weight in 0..{MOST_WEIGHT:g}")
        for name in ("eta", "gamma"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"got {name}={getattr(self, name)}; wanted a share between 0 and 1")
        for name, (least, most) in WHOLE_NUMBERS.items():
            if not least <= operator.index(getattr(self, name)) <= most:  # a TypeError where it is no whole number
                raise InputError(f"got {name}={getattr(self, name)}; wanted a whole number in {least}..{most:,}")
        if not 0 < self.learning_rate <= 10:
            raise InputError(f"got learning_rate={self.learning_rate}; wanted a number above 0 and up to 10")

    def _tissue(self, histogram: ColorHistogram, white: Floats) -> ColorHistogram:
        tissue = super()._tissue(histogram, white)
        mean = rgb_to_density(tissue.colors, white).mean(axis=1)
        return tissue.where((mean > DENSITIES[0]) & (mean < DENSITIES[1]))

    def _learn(self, colors: Floats, counts: Floats) -> dict[str, Any]:
        generator = np.random.default_rng(self.seed)
        drawn = draw(counts, self.samples, generator)
        density = rgb_to_density(colors)[drawn]
        angles, weights = START_ANGLES.copy(), np.ones(2)
        sums = [np.full_like(angles, FIRST_ACCUMULATOR), np.full_like(weights, FIRST_ACCUMULATOR)]
        for _ in range(self.steps):
            batch = density[generator.integers(0, len(density), self.batch)]
            try:
                _, *gradients = self.loss(batch, angles, weights)
            except np.linalg.LinAlgError:
                raise Unlearnable("the stain vectors fell into one plane") from None
            for value, total, gradient in zip((angles, weights), sums, gradients, strict=True):
                total += gradient**2
                value -= self.learning_rate * gradient / np.sqrt(total)
        matrix = stain_rows(angles)
        check_separable(matrix, weights)
        loss = self.loss(density, angles, weights)[0]
        return {"stain_matrix": matrix, "weights": np.append(weights, 1.0), "loss": float(loss)}

    def loss(self, density: Floats, angles: Floats, weights: Floats) -> tuple[float, Floats, Floats]:
        """The authors' objective over optical densities (n, 3), and its gradients.

        Args:
            density: (n, 3).
            angles: (2, 3), α and β of each stain.
            weights: (2,), of hematoxylin and eosin.

        Returns:
            mean s_b² + λ_p·mean 2s_h·s_e/(s_h² + s_e²) + λ_b·((1−η)·mean s_h − η·mean s_e)² + λ_e·(γ − mean s)², and
            its derivatives by the angles (2, 3) and the weights (2,).
        """
        number = len(density)
        matrix = stain_rows(angles)
        separation = np.linalg.inv(matrix)
        concentrations = density @ separation
        scale = np.append(weights, 1.0)
        amounts = concentrations * scale
        first, second, rest = amounts.T
        squares = first**2 + second**2
        safe = np.where(squares > 0, squares, 1.0)  # a pixel with neither stain mixes none
        imbalance = (1.0 - self.eta) * first.mean() - self.eta * second.mean()
        missing = self.gamma - amounts.mean()
        value = (
            (rest**2).mean()
            + self.correlation * (2.0 * first * second / safe).mean()
            + self.balance * imbalance**2
            + self.strength * missing**2
        )
        by_amount = np.full_like(amounts, -2.0 * self.strength * missing / (3 * number))
        by_amount[:, 2] += 2.0 * rest / number
        mixing = 2.0 * self.correlation * (second**2 - first**2) / safe**2 / number
        by_amount[:, 0] += mixing * second + 2.0 * self.balance * imbalance * (1.0 - self.eta) / number
        by_amount[:, 1] += -mixing * first - 2.0 * self.balance * imbalance * self.eta / number
        by_weight = (by_amount * concentrations).sum(axis=0)[:2]
        by_separation = density.T @ (by_amount * scale)
        by_matrix = -separation.T @ by_separation @ separation.T
        (alpha, beta) = angles
        by_alpha = (
            -by_matrix[:, 0] * np.sin(alpha) * np.sin(beta)
            - by_matrix[:, 1] * np.sin(alpha) * np.cos(beta)
            + by_matrix[:, 2] * np.cos(alpha)
        )
        by_beta = by_matrix[:, 0] * np.cos(alpha) * np.cos(beta) - by_matrix[:, 1] * np.cos(alpha) * np.sin(beta)
        return float(value), np.stack([by_alpha, by_beta]), by_weight

    def _default_statistics(self) -> dict[str, Any]:
        return {"stain_matrix": stain_rows(START_ANGLES), "weights": np.ones(3), "loss": 0.0}

    def _restyle(self, colors: Floats, source: AdaptiveAppearance, reference: AdaptiveAppearance) -> Floats:
        there, back = (np.linalg.inv(each.stain_matrix) * each.weights for each in (source, reference))
        density = apply_matrix(rgb_to_density(colors), there @ np.linalg.inv(back))
        # Brighter than glass is clipped later; kept finite here.
        return density_to_rgb(np.maximum(density, -1.0))


def stain_rows(angles: Floats) -> Floats:
    """Angles α, β (2, 3) to unit rows (cos α·sin β, cos α·cos β, sin α), one a stain: (3, 3)."""
    alpha, beta = angles
    return np.stack([np.cos(alpha) * np.sin(beta), np.cos(alpha) * np.cos(beta), np.sin(alpha)], axis=1)


def draw(counts: Floats, number: int, generator: np.random.Generator) -> NDArray[np.intp]:
    """Indices (number,) of colours, each drawn by its share of the counts (n,), in their given order."""
    cumulative = np.cumsum(counts)
    drawn = np.searchsorted(cumulative, generator.random(number) * cumulative[-1], side="right")
    indices: NDArray[np.intp] = np.minimum(drawn, len(counts) - 1)
    return indices


def check_separable(matrix: Floats, weights: Floats) -> None:
    """Raise `Unlearnable` unless the descent came to rest at two stains that can be told apart."""
    if not (np.isfinite(matrix).all() and np.isfinite(weights).all()):
        raise Unlearnable("the descent did not end at numbers")
    if not (WEIGHT_LIMITS[0] <= weights.min() and weights.max() <= WEIGHT_LIMITS[1]):
        raise Unlearnable(f"the stains' weights {weights.round(2)} are outside {WEIGHT_LIMITS}: one does not occur")
    angle = angle_between(matrix[0], matrix[1])
    if angle < LEAST_ANGLE or np.linalg.cond(matrix) > MOST_CONDITION:
        raise Unlearnable(f"the stain vectors are {angle:.1f} degrees apart, or not independent of the rest")
