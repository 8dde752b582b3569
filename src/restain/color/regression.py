"""A colour map fitted to pairs of pictures: what a teacher made of each colour, on average, smooth where none was seen.

"Lattice regression" (Garcia and Gupta, NIPS 2009; for colour management there): the points of a lattice are chosen so
that interpolating between them comes nearest to the observations while the lattice bends little. Here the affine map
that fits best is taken off first, and the lattice is fitted to what it leaves; far from all observations that fades
out, so that colours never seen are carried over by the affine map, and none becomes garbage.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from restain.color.paired import PairedColors
from restain.color.trilinear import corner_steps, corner_weights, grid_colors
from restain.errors import InputError

__all__ = ["FitQuality", "LatticeFit", "PairedColors", "assess_lattice", "fit_lattice", "regress_lattice"]

Floats = NDArray[np.float64]

SIZES = range(2, 66)
"""Points along a side of a lattice: two make the smallest; 65, four levels apart, is finer than tissue asks for."""

_CHUNK = 1 << 19  # colours whose weights are in memory at a time
_SPREAD = 1e-4  # levels²: along directions in which colours spread less, the affine map keeps differences as they are
_USUAL = 32  # cells along a side for which `smoothness` and `ridge` are stated


@dataclass(frozen=True)
class FitQuality:
    """How near a map of colours comes to its teacher, over all pixels and channels together.

    Attributes:
        colors: different source colours.
        pixels: how many of them there were.
        unexplained: share (0..1) of the variance of the teacher's outputs that no map of colours can give, because the
            teacher gave one colour several: by tissue, and not by colour. At least: colours seen once tell nothing.
        best_psnr: what no map of colours can exceed on these pixels, dB; infinite where the teacher is one. On other
            pixels less is possible, the more so the fewer pixels a colour has here.
        psnr: of this map, not rounded, against the teacher, dB.
        rmse: root mean square of this map's distance from the teacher's means, levels.
    """

    colors: int
    pixels: int
    unexplained: float
    best_psnr: float
    psnr: float
    rmse: float


@dataclass(frozen=True, eq=False)
class LatticeFit(FitQuality):
    """A fitted lattice, and how near it comes to what it was fitted to.

    Attributes:
        levels: (size, size, size, 3), indexed by red, green and blue, not clipped: for `restain.Lattice`.
    """

    levels: Floats


def fit_lattice(pairs: PairedColors, *, size: int = 33, smoothness: float = 0.3, ridge: float = 1e-4) -> LatticeFit:
    """Fit a lattice to pairs of colours, each weighing as much as it has pixels; see `regress_lattice`."""
    levels = regress_lattice(pairs.colors, pairs.means, pairs.counts, size=size, smoothness=smoothness, ridge=ridge)
    return LatticeFit(**vars(assess_lattice(levels, pairs)), levels=levels)


def regress_lattice(
    source_colors: ArrayLike,
    target_colors: ArrayLike,
    counts: ArrayLike | None = None,
    *,
    size: int = 33,
    smoothness: float = 0.3,
    ridge: float = 1e-4,
) -> Floats:
    """The smooth lattice whose trilinear interpolation comes nearest to the wanted colours.

    Minimises Σᵢ countᵢ·‖f(sourceᵢ) − targetᵢ‖² + smoothness·(sum of squared second differences of r) + ridge·Σ r²,
    where r = f − the affine map that fits best; both sums as in a lattice of 33 points, whatever the size.

    Args:
        source_colors: (n, 3) in 0..255.
        target_colors: (n, 3), what each is to become, or the mean of it; finite.
        counts: (n,) how often each was seen, > 0; None for once each.
        size: points along a side, 2..65.
        smoothness: how many pixels it weighs to bend by one level within one cell, > 0. The less, the nearer teachers
            that are maps of colours are met; the more, the better noise is averaged out. A third serves both, and
            teachers that sharpen, on tissue that was not fitted to.
        ridge: how fast the lattice returns to the affine map where nothing was seen, > 0.

    Returns:
        (size, size, size, 3) float64 levels, indexed by red, green and blue, not clipped.

    Raises:
        InputError: arrays that do not fit together, no colours at all, or a setting that cannot be.
    """
    from scipy import sparse

    from restain.color.multigrid import bending_energy, solve

    size = _checked_size(size)
    if not (np.isfinite([smoothness, ridge]).all() and smoothness > 0 and ridge > 0):
        raise InputError(f"got smoothness={smoothness} and ridge={ridge}; wanted finite numbers above 0")
    source, target, weights = _checked_colors(source_colors, target_colors, counts)
    plane = _Affine(source, target, weights)
    rows, right = _normal_equations(source, target - plane(source), weights, size)
    scale = (size - 1) / _USUAL
    matrix = rows + (smoothness * scale) * bending_energy(size) + (ridge / scale**3) * sparse.eye_array(size**3)
    levels: Floats = plane(grid_colors(size)) + solve(matrix.tocsr(), right, size)
    return levels.reshape(size, size, size, 3)


def assess_lattice(levels: Floats, pairs: PairedColors) -> FitQuality:
    """How near a lattice (size, size, size, 3), clipped to 0..255, comes to pairs, which it need not be fitted to."""
    from restain.color import kernels

    values = 3.0 * pairs.pixels
    if not values:
        raise InputError("got no pairs of colours; wanted at least one pixel")
    levels, colors, means, distance = np.ascontiguousarray(levels, np.float64), pairs.colors, pairs.means, 0.0
    for start in range(0, len(pairs), _CHUNK):
        part = np.s_[start : start + _CHUNK]
        made = np.clip(kernels.trilinear(levels, colors[part].astype(np.float64)), 0.0, 255.0)
        distance += float((pairs.counts[part, None] * (made - means[part]) ** 2).sum())
    within, total = float(pairs.within.sum()), float(pairs.total.sum())
    return FitQuality(
        colors=len(pairs),
        pixels=pairs.pixels,
        unexplained=within / total if total else 0.0,
        best_psnr=_psnr(within / values),
        psnr=_psnr((within + distance) / values),
        rmse=float(np.sqrt(distance / values)),
    )


class _Affine:
    """The affine map that fits best; where colours do not spread, differences from their mean are carried over."""

    def __init__(self, source: Floats, target: Floats, weights: Floats) -> None:
        share = (weights / weights.sum())[:, None]
        self._mean, self._shift = (share * source).sum(axis=0), (share * (target - source)).sum(axis=0)
        centred, change = source - self._mean, target - source - self._shift
        # Written as sums, not as products of matrices, which BLAS may add up in another order on another machine.
        spread, slope = (
            np.stack([(share * centred * each[:, None]).sum(axis=0) for each in columns.T], axis=1)
            for columns in (centred, change)
        )
        self._slope: Floats = np.linalg.solve(spread + _SPREAD * np.eye(3), slope)

    def __call__(self, colors: Floats) -> Floats:
        result: Floats = colors + self._shift
        for channel in range(3):
            result += (colors[:, channel, None] - self._mean[channel]) * self._slope[channel]
        return result


def _normal_equations(source: Floats, wanted: Floats, weights: Floats, size: int) -> tuple[NDArray[np.object_], Floats]:
    """ΦᵀWΦ, sparse (size³, size³), and ΦᵀW·wanted (size³, 3), for the interpolation weights Φ of the colours."""
    from scipy import sparse

    points, steps = size**3, corner_steps(size)
    entries = {int(step): np.zeros(points) for step in (steps[:, None] - steps).ravel()}
    right = np.zeros((points, 3))
    for start in range(0, len(source), _CHUNK):
        part = np.s_[start : start + _CHUNK]
        first, shares = corner_weights(source[part], size)
        for here, step in enumerate(steps):
            weighted = weights[part] * shares[:, here]
            for channel in range(3):
                right[:, channel] += np.bincount(first + step, weighted * wanted[part, channel], minlength=points)
            for there, other in enumerate(steps):
                entries[int(other - step)] += np.bincount(first + step, weighted * shares[:, there], minlength=points)
    occurring = {step: np.flatnonzero(values) for step, values in entries.items()}
    data = np.concatenate([entries[step][rows] for step, rows in occurring.items()])
    rows = np.concatenate(list(occurring.values()))
    columns = np.concatenate([rows + step for step, rows in occurring.items()])
    return sparse.csr_array((data, (rows, columns)), shape=(points, points)), right


def _psnr(squared: float) -> float:
    return float(10.0 * np.log10(255.0**2 / squared)) if squared > 0 else float("inf")


def _checked_size(size: int) -> int:
    if isinstance(size, bool) or size not in SIZES:
        raise InputError(f"got size={size!r}; wanted a whole number in {SIZES[0]}..{SIZES[-1]}, usually 33")
    return int(size)


def _checked_colors(source: ArrayLike, target: ArrayLike, counts: ArrayLike | None) -> tuple[Floats, Floats, Floats]:
    colors, wanted = np.asarray(source, np.float64), np.asarray(target, np.float64)
    weights = np.ones(len(colors)) if counts is None else np.asarray(counts, np.float64)
    if colors.ndim != 2 or colors.shape[1] != 3 or wanted.shape != colors.shape or weights.shape != colors.shape[:1]:
        raise InputError(
            f"got colours {colors.shape}, wanted colours {wanted.shape} and counts {weights.shape}; "
            "wanted (n, 3), (n, 3) and (n,)"
        )
    if not len(colors):
        raise InputError("got no colours to fit a lattice to; wanted at least one")
    if not ((colors >= 0) & (colors <= 255)).all():  # NaN fails too
        raise InputError("source colours must lie in 0..255")
    if not (np.isfinite(wanted).all() and np.isfinite(weights).all() and (weights > 0).all()):
        raise InputError("wanted colours must be finite, and counts finite and above 0")
    return colors, wanted, weights
