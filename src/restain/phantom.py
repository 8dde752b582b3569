"""Synthetic H&E tissue whose stains, white point and structures are known exactly.

A phantom is drawn once as *concentrations* (how much hematoxylin, eosin and blood lies at each pixel) and then
photographed by a `Scanner` with the stains of a lab. The drawing never sees stains or scanner, so the same tissue
rendered twice gives pixel pairs with known truth:

    tissue = make_phantom(512, 512, seed=1)
    other = render(tissue.concentrations, tissue.rbc, STAINS_B, Scanner(white=(232.0, 236.0, 240.0)))

Scale: about 0.5 micrometres per pixel (a 20x objective). Lengths in this file are pixels, angles radians, and
concentrations optical densities (natural logarithm) along unit vectors.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

__all__ = ["RBC", "STAINS_A", "STAINS_B", "Phantom", "Scanner", "make_phantom", "render"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Mask = NDArray[np.bool_]
_Rng = np.random.Generator


def _unit(vectors: ArrayLike) -> Float64:
    rows = np.array(vectors, dtype=np.float64)
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    rows.setflags(write=False)
    return rows


# Rows hematoxylin, eosin; columns red, green, blue; within the range that Macenko's method finds on public H&E slides.
# A: violet-blue hematoxylin, rose eosin. Its eosin hardly absorbs red, so rules that ask for density in *every*
# channel throw the pure eosin away, as they do on many real slides. B: purple hematoxylin, salmon eosin.
STAINS_A = _unit([[0.61, 0.74, 0.28], [0.09, 0.95, 0.26]])
STAINS_B = _unit([[0.54, 0.76, 0.36], [0.19, 0.86, 0.47]])

# Haemoglobin with eosin absorbs blue as strongly as green, which is orange-red. Eosin alone lets blue through and is
# pink: no mixture of the two stains gives this colour.
RBC = _unit([0.07, 0.70, 0.71])


@dataclass(frozen=True)
class Scanner:
    """How a scanner turns transmittance (0..1) into grey levels (0..255)."""

    white: tuple[float, float, float] = (243.0, 243.0, 243.0)
    """Red, green and blue level of empty glass, each in (0, 255]."""
    gamma: float = 1.0
    """Exponent on transmittance, > 0; 1 keeps Beer-Lambert exact."""
    blur: float = 0.0
    """Gaussian sigma in pixels, on transmittance: optics mixes light, not density."""
    noise: float = 0.0
    """Standard deviation of additive Gaussian noise, grey levels."""

    def __post_init__(self) -> None:
        if len(self.white) != 3 or not all(0 < level <= 255 for level in self.white):
            raise ValueError(f"white came as {self.white}; wanted three levels (red, green, blue), each in (0, 255]")
        if not 0 < self.gamma < math.inf:
            raise ValueError(f"gamma came as {self.gamma}; wanted a finite number > 0")
        for name, value in (("blur", self.blur), ("noise", self.noise)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} came as {value}; wanted a finite number >= 0")


@dataclass(frozen=True)
class Phantom:
    """A picture and everything that was planted in it."""

    image: NDArray[np.uint8]
    """(H, W, 3) RGB levels."""
    concentrations: Float32
    """(H, W, 2) hematoxylin and eosin, >= 0."""
    rbc: Float32
    """(H, W) concentration of red blood cells along `RBC`, >= 0."""
    stain_matrix: Float64
    """(2, 3) optical-density rows, hematoxylin and eosin."""
    scanner: Scanner
    nuclei: Mask
    """(H, W) pixels at least half covered by a nucleus."""
    blood: Mask
    """(H, W) pixels at least half covered by a red blood cell."""
    lumen: Mask
    """(H, W) empty holes inside the tissue (glands, vessels, clefts between fibres): part of `glass`."""
    glass: Mask
    """(H, W) pixels with nothing in them, outside the tissue or in a lumen: every concentration is exactly 0."""


def render(
    concentrations: ArrayLike, rbc: ArrayLike, stain_matrix: ArrayLike, scanner: Scanner, *, seed: int = 0
) -> NDArray[np.uint8]:
    """Photograph concentrations: Beer-Lambert, blur, tone curve, noise, 8 bits.

    With gamma 1, no blur and no noise, ``-log((image + 1) / (white + 1))`` is the planted optical density up to the
    rounding of the level, wherever the level is above 0.

    Args:
        concentrations: (H, W, 2) hematoxylin and eosin, >= 0.
        rbc: (H, W) concentration of red blood cells, >= 0.
        stain_matrix: (2, 3) optical-density rows, hematoxylin and eosin; finite, usually of unit length.
        scanner: White point, tone curve, blur and noise.
        seed: Seed of the noise, >= 0; without noise it changes nothing.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: An array has the wrong shape, or the stain matrix is not finite.
    """
    stained, blood, stains = np.asarray(concentrations), np.asarray(rbc), np.asarray(stain_matrix, dtype=np.float64)
    if stained.ndim != 3 or stained.shape[2] != 2 or 0 in stained.shape:
        raise ValueError(f"concentrations came with shape {stained.shape}; wanted (H, W, 2) with H, W >= 1")
    if blood.shape != stained.shape[:2]:
        raise ValueError(f"rbc came with shape {blood.shape}; wanted {stained.shape[:2]}, as the concentrations")
    if stains.shape != (2, 3) or not np.isfinite(stains).all():
        wanted = "a finite (2, 3) matrix, rows hematoxylin and eosin, columns red, green and blue"
        raise ValueError(f"stain_matrix came with shape {stains.shape}, {stains.tolist()}; wanted {wanted}")
    rng = np.random.default_rng(seed)
    image: NDArray[np.uint8] = np.empty((*blood.shape, 3), dtype=np.uint8)
    for channel in range(3):  # one at a time: a third of the float64 memory
        hematoxylin, eosin = stains[:, channel]
        light = np.exp(-(hematoxylin * stained[..., 0] + eosin * stained[..., 1] + RBC[channel] * blood))
        if scanner.blur > 0:
            light = ndimage.gaussian_filter(light, scanner.blur, mode="nearest")
        level = (scanner.white[channel] + 1) * light**scanner.gamma - 1
        if scanner.noise > 0:
            level += rng.normal(0, scanner.noise, level.shape)
        image[..., channel] = np.clip(np.rint(level), 0, 255)
    return image


def make_phantom(
    height: int = 512,
    width: int = 512,
    *,
    seed: int = 0,
    stain_matrix: ArrayLike = STAINS_A,
    scanner: Scanner = Scanner(),
    strength: tuple[float, float] = (1.0, 1.0),
    blood: bool = True,
    glass_fraction: float = 0.25,
) -> Phantom:
    """Draw a piece of glandular tissue and photograph it.

    The same arguments always give the same bytes. Where things are depends on the size, `seed`, `blood` and
    `glass_fraction` only.

    Args:
        height: Rows, >= 1.
        width: Columns, >= 1.
        seed: Which tissue, and which noise; >= 0.
        stain_matrix: (2, 3) optical-density rows, hematoxylin and eosin.
        scanner: How the tissue is photographed.
        strength: Factors >= 0 on the hematoxylin and eosin concentrations: a darker or paler staining.
        blood: Whether there are red blood cells. Without them the same vessels are empty.
        glass_fraction: Share of the picture outside the tissue, 0..1; lumens come on top of it.

    Returns:
        The picture with its planted truth.

    Raises:
        ValueError: A size, factor, fraction or matrix is out of its range.
    """
    if height < 1 or width < 1:
        raise ValueError(f"size came as {height} x {width}; wanted height and width >= 1")
    if len(strength) != 2 or not all(0 <= factor < math.inf for factor in strength):
        raise ValueError(f"strength came as {strength}; wanted two finite factors >= 0, hematoxylin and eosin")
    if not 0 <= glass_fraction <= 1:
        raise ValueError(f"glass_fraction came as {glass_fraction}; wanted a number in 0..1")
    tissue = _Tissue(height, width, seed, blood, glass_fraction)
    concentrations = np.stack([tissue.h, tissue.e], axis=-1) * np.asarray(strength, dtype=np.float32)
    glass = (tissue.h == 0) & (tissue.e == 0) & (tissue.rbc == 0)
    return Phantom(
        image=render(concentrations, tissue.rbc, stain_matrix, scanner, seed=seed),
        concentrations=concentrations,
        rbc=tissue.rbc,
        stain_matrix=np.array(stain_matrix, dtype=np.float64),
        scanner=scanner,
        nuclei=tissue.nuclei,
        blood=tissue.blood,
        lumen=glass & (tissue.inside > 0),
        glass=glass,
    )


_Range = tuple[float, float]
_Box = tuple[slice, slice]
_Site = tuple[float, float, float, bool]  # row, column and radius of a gland or vessel, and whether it is a vessel

# Nuclei: half axes, long and short, and hematoxylin concentration; each drawn between the two numbers.
_EPITHELIUM = ((5.5, 8.5), (3.6, 5.0), (1.0, 1.9))
_FIBROBLAST = ((6.0, 12.0), (1.8, 3.0), (1.1, 1.9))
_LYMPHOCYTE = ((4.0, 4.8), (3.6, 4.2), (1.7, 2.3))

# The directions, once around, in which the edge of a gland or vessel is known.
_TURNS = np.radians(np.arange(361))


class _Tissue:
    """The drawing, from back to front: fibres, stromal cells, then glands and vessels with their cells and holes.

    Each part has its own random stream, so leaving out the blood moves nothing else. Cells are painted into small
    boxes, which keeps the time proportional to the area.
    """

    def __init__(self, height: int, width: int, seed: int, blood: bool, glass_fraction: float) -> None:
        grains, shore, darts, fibres, cells, walls, red_cells = np.random.default_rng(seed).spawn(7)
        self.shape = height, width
        self.rows, self.columns = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
        self.nuclei, self.blood = np.zeros(self.shape, dtype=np.bool_), np.zeros(self.shape, dtype=np.bool_)
        self.rbc = np.zeros(self.shape, dtype=np.float32)
        # A small repeating texture, read at random places: chromatin in nuclei, granules in cytoplasm.
        self.grain = ndimage.gaussian_filter(grains.standard_normal((256, 256), dtype=np.float32), 1.1, mode="wrap")
        self.grain /= self.grain.std()
        self.inside = self._island(shore, glass_fraction)
        sites = self._sites(darts)
        self._stroma(fibres, sites)
        self._stromal_cells(cells)
        for y, x, radius, vessel in sites:
            lumen = self._vessel(walls, y, x, radius) if vessel else self._gland(walls, y, x, radius)
            if blood and vessel:
                self._red_cells(red_cells, y, x, radius, lumen)
        for layer in (self.h, self.e, self.rbc):
            layer *= self.inside
        self.nuclei &= self.inside >= 0.5
        self.blood &= self.inside >= 0.5

    def _smooth_noise(self, rng: _Rng, scale: float) -> Float32:
        """(H, W) Gaussian noise of mean 0 and variance 1 that changes over about `scale` pixels.

        A coarse grid of random numbers, spread by Gaussian bumps: two matrix products instead of a wide filter.
        """
        spread = []
        for length in self.shape:
            knots = np.arange(-2, length / scale + 2, dtype=np.float32)
            bumps = np.exp(-((np.arange(length, dtype=np.float32)[:, None] / np.float32(scale) - knots) ** 2))
            spread.append(bumps / np.sqrt((bumps**2).sum(axis=1, keepdims=True)))
        rows, columns = spread
        grid = rng.standard_normal((rows.shape[1], columns.shape[1]), dtype=np.float32)
        noise: Float32 = rows @ grid @ columns.T
        return noise

    def _island(self, rng: _Rng, glass_fraction: float) -> Float32:
        """How much of each pixel (0..1) lies inside the tissue: a rounded piece with a wandering shore."""
        size = max(self.shape)
        rows, columns = (
            (axis / length - rng.uniform(0.35, 0.65)) * size
            for axis, length in zip((self.rows, self.columns), self.shape, strict=True)
        )
        height = -np.sqrt(np.sqrt(rows**4 + columns**4))
        for scale, swing in ((max(size / 4, 8), 0.09 * size), (70, 14), (28, 6), (10, 1.5)):
            height += swing * self._smooth_noise(rng, scale)
        water = float(np.quantile(height, glass_fraction)) if glass_fraction > 0 else -math.inf
        inside: Float32 = np.clip(height - water, 0, 1)
        return inside

    def _sites(self, rng: _Rng) -> list[_Site]:
        """Circles that do not touch, thrown like darts; vessels first, or the glands would leave them no room."""
        height, width = self.shape
        vessels = 1 + height * width // 70_000
        sites: list[_Site] = []
        for dart in range(20 * vessels + height * width // 1_000):
            vessel = dart < 20 * vessels and len(sites) < vessels
            radius = rng.uniform(22, 44) if vessel else (40, 58, 76, 95)[rng.integers(4)] * rng.uniform(0.85, 1.1)
            margin = 0.0 if vessel else 0.5 * radius
            y, x = rng.uniform(-margin, height + margin), rng.uniform(-margin, width + margin)
            if vessel and self.inside[int(y), int(x)] == 0:
                continue
            if all((y - v) ** 2 + (x - u) ** 2 > (radius + other + 6) ** 2 for v, u, other, _ in sites):
                sites.append((y, x, radius, vessel))
        return sites

    def _stroma(self, rng: _Rng, sites: list[_Site]) -> None:
        """Wavy collagen: fibres are the contour lines of the height map `flow`, and sites are hills they go round."""
        (height, width), angle = self.shape, rng.uniform(0, math.pi)
        along = math.cos(angle) * self.columns + math.sin(angle) * self.rows
        flow = math.cos(angle) * self.rows - math.sin(angle) * self.columns
        flow += 17 * self._smooth_noise(rng, 110) + 3 * self._smooth_noise(rng, 30)
        for y, x, radius, _ in sites:
            box, dy, dx = self._box(y, x, 2.2 * radius)
            flow[box] += 1.5 * radius * np.maximum(1 - (dy * dy + dx * dx) / (2.2 * radius) ** 2, 0) ** 2
        down, right = np.diff(flow, axis=0, append=flow[-1:]), np.diff(flow, axis=1, append=flow[:, -1:])
        self.fibre_angle = np.arctan2(-right, down)
        threads = ndimage.gaussian_filter(rng.standard_normal((512, 512), dtype=np.float32), 1.0, mode="wrap")
        threads /= threads.std()
        fibre = ndimage.map_coordinates(threads, [flow, along / 11], order=1, mode="grid-wrap")
        packed = np.clip(fibre + 2.5, 0, 1)  # between the thinnest fibres the glass shows through
        fibre += 0.35 * np.tile(self.grain, (height // 256 + 1, width // 256 + 1))[:height, :width]
        self.e = packed * np.maximum(0.52 + 0.10 * self._smooth_noise(rng, 60) + 0.16 * fibre, 0)
        self.h = packed * np.maximum(0.04 + 0.06 * self._smooth_noise(rng, 25), 0)

    def _stromal_cells(self, rng: _Rng) -> None:
        """Fibroblasts, spindles that lie along the fibres, and clusters of lymphocytes, small, round and dark."""
        height, width = self.shape
        for _ in range(height * width // 900):
            y, x = rng.uniform(0, height), rng.uniform(0, width)
            self._nucleus(rng, _FIBROBLAST, y, x, float(self.fibre_angle[int(y), int(x)]) + rng.normal(0, 0.15))
        for _ in range(height * width // 30_000):
            y, x = rng.uniform(0, height), rng.uniform(0, width)
            for _ in range(rng.integers(4, 26)):
                self._nucleus(rng, _LYMPHOCYTE, y + rng.normal(0, 20), x + rng.normal(0, 20), 0)

    def _gland(self, rng: _Rng, y: float, x: float, radius: float) -> Float32:
        """Tall cells, two crooked rows of nuclei at their feet; a small gland is a solid cord. Returns the lumen."""
        radii, box, depth = self._blob(rng, y, x, radius, flat=rng.uniform(0.55, 0.95))
        wall = rng.uniform(25, 33)
        solid = bool(radii.min() < wall + 5)
        lumen: Float32 = np.clip(depth - wall + 0.5, 0, 0 if solid else 1)
        inward = np.clip(depth / wall, 0, 1)  # cytoplasm is purple beside the nuclei and pinker towards the lumen
        granules = 1 + 0.12 * self._grain(rng, depth.shape)
        h, e = granules * (0.40 - 0.25 * inward), granules * (0.40 + 0.15 * inward)
        self._paint(box, np.clip(depth + 0.5, 0, 1), h, e)
        for inset in np.arange(10, radii.max(), 11.5).tolist() if solid else (9.5, 17.5):
            for v, u, outward in _row(rng, radii, inset, spacing=(8, 12)):
                self._nucleus(rng, _EPITHELIUM, y + v, x + u, outward + rng.normal(0, 0.9 if solid else 0.25))
        self._paint(box, lumen, 0, 0)
        return lumen

    def _vessel(self, rng: _Rng, y: float, x: float, radius: float) -> Float32:
        """A thin wall with flat nuclei. Returns how much of each pixel of its box is lumen."""
        radii, box, depth = self._blob(rng, y, x, radius, flat=rng.uniform(0.4, 0.7))
        lumen: Float32 = np.clip(depth - 3.5, 0, 1)
        self._paint(box, np.clip(depth + 0.5, 0, 1), 0.05, 0.65)
        self._paint(box, lumen, 0, 0)
        for v, u, outward in _row(rng, radii, 1.5, spacing=(16, 50)):
            self._nucleus(rng, _FIBROBLAST, y + v, x + u, outward + math.pi / 2)
        return lumen

    def _red_cells(self, rng: _Rng, y: float, x: float, radius: float, lumen: Float32) -> None:
        """Discs in staggered rows, jostled, some missing, a little paler in the middle."""
        box, dy, dx = self._box(y, x, radius + 1)
        for row, v in enumerate(np.arange(-radius, radius, 8.5).tolist()):
            for u in np.arange(-radius + 5 * (row % 2), radius, 10).tolist():
                size, amount = rng.uniform(4.8, 6.2), rng.uniform(1.1, 1.8)
                if rng.uniform() < 0.12:
                    continue
                distance = np.hypot(dy - v - rng.normal(0, 1.2), dx - u - rng.normal(0, 1.2)) / size
                cover: Float32 = lumen * np.clip((1 - distance) * size + 0.5, 0, 1)
                self._paint(box, cover, 0, 0)
                self.rbc[box] += cover * (amount * (0.82 + 0.25 * np.minimum(distance, 1) ** 2) - self.rbc[box])
                self.blood[box] |= cover >= 0.5

    def _nucleus(self, rng: _Rng, kind: tuple[_Range, _Range, _Range], y: float, x: float, angle: float) -> None:
        """An ellipse, bent a little, with clumped chromatin and a dark rim."""
        long, short, density = (rng.uniform(*limits) for limits in kind)
        box, dy, dx = self._box(y, x, long + 1)
        u = (dx * math.cos(angle) + dy * math.sin(angle)) / long
        v = (dy * math.cos(angle) - dx * math.sin(angle)) / short + rng.normal(0, 0.2) * u * u
        radius = np.sqrt(u * u + v * v)
        cover: Float32 = np.clip((1 - radius) * short + 0.5, 0, 1)
        h = density * (0.82 + 0.18 * self._grain(rng, cover.shape) + 0.3 * np.minimum(radius, 1) ** 4)
        # A quarter of the nuclei hold no eosin: these plant the pure hematoxylin that stain estimators look for.
        self._paint(box, cover, np.maximum(h, 0.2), max(rng.uniform(-0.15, 0.45), 0))
        self.nuclei[box] |= cover >= 0.5

    def _blob(self, rng: _Rng, y: float, x: float, radius: float, flat: float) -> tuple[Float64, _Box, Float32]:
        """An uneven ellipse within `radius`: its radii at `_TURNS`, its box, and there the depth below its edge."""
        tilt = rng.uniform(0, math.pi)
        radii = radius * flat / np.hypot(flat * np.cos(_TURNS - tilt), np.sin(_TURNS - tilt))
        for waves in (2, 3, 4, 5, 7):
            radii *= 1 + rng.uniform(0, 0.18) / waves * np.cos(waves * _TURNS + rng.uniform(0, 2 * math.pi))
        radii = np.minimum(radii, radius)
        box, dy, dx = self._box(y, x, radius + 1)
        depth: Float32 = np.interp(np.arctan2(dy, dx) % (2 * math.pi), _TURNS, radii).astype(np.float32)
        depth -= np.hypot(dy, dx)
        return radii, box, depth

    def _box(self, y: float, x: float, reach: float) -> tuple[_Box, Float32, Float32]:
        """The part of the picture within `reach` of a point, with its rows and columns counted from that point."""
        up, left = (slice(max(int(c - reach), 0), max(int(c + reach) + 2, 0)) for c in (y, x))
        return (up, left), self.rows[up] - y, self.columns[left] - x

    def _grain(self, rng: _Rng, shape: tuple[int, ...]) -> Float32:
        """A piece of the texture, mean 0 and variance 1, for a box of at most 255 x 255 pixels."""
        top, left = rng.integers(0, 256 - np.array(shape))
        grain: Float32 = self.grain[top : top + shape[0], left : left + shape[1]]
        return grain

    def _paint(self, box: _Box, cover: Float32, h: Float32 | float, e: Float32 | float) -> None:
        """Replace what lies in `box` by these concentrations, in proportion to `cover` (0..1)."""
        self.h[box] += cover * (h - self.h[box])
        self.e[box] += cover * (e - self.e[box])
        self.nuclei[box] &= cover < 0.5


def _row(rng: _Rng, radii: Float64, inset: float, spacing: _Range) -> Iterator[tuple[float, float, float]]:
    """Places around a centre, about `inset` within an edge: rows and columns from the centre, direction outwards."""
    turn = rng.uniform(0, 0.1)
    while turn < 2 * math.pi:
        reach = float(np.interp(turn, _TURNS, radii)) - inset + rng.normal(0, 0.15 * inset)
        if reach > 0:
            yield reach * math.sin(turn), reach * math.cos(turn), turn
        turn += rng.uniform(*spacing) / max(reach, 4)
