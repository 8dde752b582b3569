"""A cohort's consensus: what its slides look like on the whole, as a reference that nobody had to pick.

Every slide counts alike, however large it is, and however much glass is on it:

- its tissue colours are scaled from its own white point to 255, so that scanners with different glass can be merged,
  and weighted to one and the same sum;
- the consensus's white point is, in each channel, the median of the slides' own, of those that show glass;
- the merged colours are scaled to that white point, and beside them lies as much glass of its colour as there is
  tissue.

Weights are whole numbers whose sum a float64 holds exactly, so the result does not depend on the order in which slides
are merged, nor on who counted them.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restain.color.glass import find_white_point
from restain.color.histogram import ColorHistogram, pack, unpack
from restain.color.spaces import balance
from restain.errors import InputError
from restain.methods.base import LEAST_COLORS

WEIGHT = 1 << 36
"""The sum of the weights of one slide's tissue: 2¹⁷ slides fit into the 53 bits of a float64."""

TISSUE = 0.9
"""Share of glass's lightness below which a colour is tissue: the widest of the methods' rules."""

BITS = 7
"""Bits a channel of a slide's colours, so that a share is small (some 100,000 colours); stain vectors move by 0.1°."""


@dataclass(frozen=True, eq=False)
class Share:
    """What one slide gives to the consensus.

    Attributes:
        codes: (n,) uint32, its tissue colours with glass at 255; see `ColorHistogram`.
        weights: (n,) int64, that add up to about `WEIGHT`; none where the slide shows too little tissue.
        white_point: (3,) float64, level of its glass, 0..255.
        white_origin: "glass" where it was measured.
        icc_profile: of its pixels, None for sRGB.
    """

    codes: NDArray[np.uint32]
    weights: NDArray[np.int64]
    white_point: NDArray[np.float64]
    white_origin: str
    icc_profile: bytes | None

    @classmethod
    def of(cls, histogram: ColorHistogram) -> "Share":
        """The share of a slide, from its sample."""
        white = find_white_point(histogram)
        tissue = histogram.tissue(white.level, TISSUE)
        enough = len(tissue) >= LEAST_COLORS
        tissue = tissue.binned(BITS) if enough else tissue.where(np.zeros(len(tissue), np.bool_))
        codes, group = np.unique(pack(_rounded(balance(tissue.colors, white.level))), return_inverse=True)
        counts = np.bincount(group, tissue.counts, minlength=len(codes))
        weights = np.rint(counts * (WEIGHT / max(tissue.pixels, 1.0))).astype(np.int64)
        seen = weights > 0
        return cls(codes[seen], weights[seen], white.level, white.origin, histogram.icc_profile)

    def digest(self) -> bytes:
        """What tells this share from another."""
        digest = hashlib.sha256()
        for array in (self.codes, self.weights, self.white_point):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.digest()


class Consensus:
    """Shares, added up as they come; one table of 2²⁴ sums (128 MiB, committed only where colours occur)."""

    def __init__(self) -> None:
        self._sums = np.zeros(1 << 24, np.int64)
        self._whites: list[NDArray[np.float64]] = []
        self._digests: list[bytes] = []
        self._profiles: set[bytes | None] = set()

    def add(self, share: Share) -> bool:
        """Add a slide's share; False where it shows no tissue and does not count."""
        if not len(share.codes):
            return False
        self._sums[share.codes] += share.weights
        if share.white_origin == "glass":
            self._whites.append(share.white_point)
        self._digests.append(share.digest())
        self._profiles.add(share.icc_profile)
        return True

    def histogram(self) -> ColorHistogram:
        """The consensus as a reference: half tissue, half glass.

        Raises:
            InputError: no slide showed tissue.
        """
        if not self._digests:
            raise InputError("none of the slides shows stained tissue, so there is no consensus to be found")
        used = np.flatnonzero(self._sums).astype(np.uint32)
        tissue, sums = unpack(used), self._sums[used].astype(np.float64)
        facts: dict[str, Any] = {
            "consensus_of": len(self._digests),
            "sha256_of_samples": hashlib.sha256(b"".join(sorted(self._digests))).hexdigest(),
        }
        # Pixels of two colour spaces do not share a profile; then none is claimed.
        profile = next(iter(self._profiles)) if len(self._profiles) == 1 else None
        if not self._whites:  # no slide shows glass; its level stays a guess
            return ColorHistogram(used, sums, icc_profile=profile, provenance=facts)
        white = np.median(np.array(self._whites), axis=0)
        levels, shares = _glass(white)
        glass_sums = shares * sums.sum()
        scaled = (tissue + 1.0) / 256.0 * (white + 1.0) - 1.0
        whole = ColorHistogram.from_colors(
            np.concatenate([_rounded(np.clip(scaled, 0.0, 255.0)), levels]), np.concatenate([sums, glass_sums])
        )
        flat = ColorHistogram.from_colors(levels, glass_sums)
        return ColorHistogram(whole.codes, whole.counts, flat=flat, icc_profile=profile, provenance=facts)


def consensus_of(histograms: Sequence[ColorHistogram]) -> ColorHistogram:
    """The consensus of slides, from their samples (`sample_slide`); each counts alike.

    Raises:
        InputError: no slide shows tissue.
    """
    consensus = Consensus()
    for histogram in histograms:
        consensus.add(Share.of(histogram))
    return consensus.histogram()


def _glass(white: NDArray[np.float64]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Whole colours (8, 3) around a white point, and shares (8,) by which they average to it."""
    near = np.rint(white)
    white = np.where(np.abs(white - near) < 0.02, near, white)  # a trace of another level would count as noise
    low = np.minimum(np.floor(white), 254.0)
    up = white - low
    corner = np.array([[(number >> channel) & 1 for channel in range(3)] for number in range(8)])
    shares = np.where(corner == 1, up, 1.0 - up).prod(axis=1)
    return (low + corner).astype(np.uint8), shares


def _rounded(colors: NDArray[np.float64]) -> NDArray[np.uint8]:
    whole: NDArray[np.uint8] = np.rint(colors).astype(np.uint8)
    return whole
