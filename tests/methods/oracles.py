"""What each method's published formula gives, written a second time: float64, and nothing of restain's code in it.

Only fitted numbers are read, from the appearances: white points, moments, stain vectors, strengths, distributions.
Colours come as (n, 3) uint8 and results leave as (n, 3) float64, not rounded; inside, channels come first, and what
depends on one channel alone is evaluated for its 256 levels and looked up.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline, RegularGridInterpolator

LEVELS = np.arange(256.0)

# restain's own choices, where the papers leave something open; each has its reason in the code.
GLASS_ENDS, TISSUE_BEGINS = 0.03, 0.25  # densities between which glass fades into tissue
LEAST_STAIN = 0.05  # robust maximum of a concentration below which a stain is absent
LARGEST_RATIO = 3.0  # of a stain's strengths
TONE_LIMITS = 0.75, 1.5  # exponents of a stain's tone


def look_up(tables: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Three tables of 256, one a channel, at colours (n, 3): (3, n)."""
    return np.stack([table[colors[:, channel]] for channel, table in enumerate(tables)])


def balanced(white: np.ndarray) -> np.ndarray:
    """(3, 256): the levels with glass scaled to 255, T = (I+1)/(W+1), within 0..255."""
    return np.clip((LEVELS + 1) / (np.asarray(white)[:, None] + 1) * 256 - 1, 0, 255)


def angles_between(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Degrees between unit vectors, row by row."""
    return np.degrees(np.arccos(np.clip((rows * others).sum(axis=1), -1, 1)))


# ---- CIELAB, as scikit-image has it: sRGB, D65, 2 degrees --------------------------------------------------------

XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
WHITE = np.array([[0.95047], [1.0], [1.08883]])


def lab_from_rgb(tables: np.ndarray, colors: np.ndarray) -> np.ndarray:
    share = tables / 255
    linear = look_up(np.where(share > 0.04045, ((share + 0.055) / 1.055) ** 2.4, share / 12.92), colors)
    xyz = XYZ @ linear / WHITE
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def rgb_from_lab(lab: np.ndarray) -> np.ndarray:
    y = (lab[0] + 16) / 116
    root = np.maximum(np.stack([y + lab[1] / 500, y, y - lab[2] / 200]), 0)
    linear = np.linalg.inv(XYZ) @ (np.where(root > 0.2068966, root**3, (root - 16 / 116) / 7.787) * WHITE)
    return 255 * np.where(linear > 0.0031308, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055, 12.92 * linear)


# ---- Ruderman's lαβ ---------------------------------------------------------------------------------------------

LMS = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
AXES = np.diag(1 / np.sqrt([3, 6, 2])) @ np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]])


def lalphabeta_from_rgb(tables: np.ndarray, colors: np.ndarray) -> np.ndarray:
    return AXES @ np.log(LMS @ ((look_up(tables, colors) + 1) / 256))


def rgb_from_lalphabeta(lab: np.ndarray) -> np.ndarray:
    return 256 * (np.linalg.inv(LMS) @ np.exp(np.linalg.inv(AXES) @ lab)) - 1


# ---- the methods: balanced colours of the source in the reference's appearance -----------------------------------


def reinhard(settings, source, reference, tables, colors) -> np.ndarray:
    """(x − μ_s)/σ_s·σ_t + μ_t in each channel of a Lab space."""
    forward, backward = {
        "lab": (lab_from_rgb, rgb_from_lab),
        "lalphabeta": (lalphabeta_from_rgb, rgb_from_lalphabeta),
    }[settings["space"]]
    lab = forward(tables, colors)
    for channel in range(3):
        scale = reference.deviation[channel] / source.deviation[channel] if source.deviation[channel] >= 1e-6 else 1
        lab[channel] = (lab[channel] - source.mean[channel]) * scale + reference.mean[channel]
    return backward(lab)


def reinhard_modified(settings, source, reference, tables, colors) -> np.ndarray:
    """q = (σ_t − σ_s)/σ_t of L, 0.05 if that is ≤ 0; L' = μ_s + (L − μ_s)(1 + q); a and b are shifted."""
    lightness, a, b = lab_from_rgb(tables, colors)
    q = (reference.deviation[0] - source.deviation[0]) / reference.deviation[0]
    if q <= 0:
        q = 0.05
    lightness = source.mean[0] + (lightness - source.mean[0]) * (1 + q)
    a = reference.mean[1] + (a - source.mean[1])
    b = reference.mean[2] + (b - source.mean[2])
    return rgb_from_lab(np.stack([lightness, a, b]))


def histogram(settings, source, reference, tables, colors) -> np.ndarray:
    """Each level becomes the one at which the reference's cumulative distribution is as far; linear in between."""
    matched = np.zeros((3, 256))
    for channel in range(3):
        wanted = reference.cumulative[channel]
        steps = [level for level in range(256) if wanted[level] > (wanted[level - 1] if level else 0)]
        for level in range(256):
            low = int(np.floor(tables[channel, level]))
            high, between = min(low + 1, 255), tables[channel, level] - low
            share = (1 - between) * source.cumulative[channel, low] + between * source.cumulative[channel, high]
            after = next((i for i, step in enumerate(steps) if wanted[step] >= share), len(steps) - 1)
            if after == 0 or wanted[steps[after]] <= share:
                matched[channel, level] = steps[after]
            else:
                left, right = steps[after - 1], steps[after]
                part = (share - wanted[left]) / (wanted[right] - wanted[left])
                matched[channel, level] = left + part * (right - left)
    return look_up(matched, colors)


def least_squares(settings, density, stains) -> np.ndarray:
    return np.linalg.solve(stains @ stains.T, stains @ density)


def deconvolved(settings, density, stains) -> np.ndarray:
    """C = OD·M⁻¹, where two stains are completed by their unit cross product."""
    if len(stains) == 2:
        normal = np.cross(stains[0], stains[1])
        stains = np.vstack([stains, normal / np.linalg.norm(normal)])
        return np.linalg.solve(stains.T, density)[:2]
    return np.linalg.solve(stains.T, density)


def sparse(settings, density, stains) -> np.ndarray:
    """The non-negative lasso of two stains: G⁻¹b if that is not negative, else the better of the two single stains."""
    g, b = stains @ stains.T, stains @ density - settings["concentration_sparsity"]
    both = np.linalg.solve(g, b)
    nothing = np.zeros_like(b[0])
    one = np.stack([np.maximum(b[0] / g[0, 0], 0), nothing])
    other = np.stack([nothing, np.maximum(b[1] / g[1, 1], 0)])

    def objective(c: np.ndarray) -> np.ndarray:  # up to ½‖v‖²
        return 0.5 * (g[0, 0] * c[0] ** 2 + 2 * g[0, 1] * c[0] * c[1] + g[1, 1] * c[1] ** 2) - (b * c).sum(axis=0)

    single = np.where(objective(one) <= objective(other), one, other)
    return np.where((both >= 0).all(axis=0), both, single)


def of_stains(concentrations: Callable) -> Callable:
    """Separate, match each stain's strength, mix again."""

    def restyle(settings, source, reference, tables, colors) -> np.ndarray:
        density = look_up(np.maximum(-np.log((tables + 1) / 256), 0), colors)
        amounts = concentrations(settings, density, source.stain_matrix)
        matched = np.stack([_matched(settings, source, reference, i, amount) for i, amount in enumerate(amounts)])
        result = reference.stain_matrix.T @ matched
        if settings["residual"] == "keep":
            result += density - source.stain_matrix.T @ amounts
        return 256 * np.exp(-result) - 1

    return restyle


def _matched(settings, source, reference, stain: int, amount: np.ndarray) -> np.ndarray:
    """m_t·(c/m_s)^p with robust maxima m; p takes the median to the reference's, as far as the limits let it."""
    largest, wanted = source.max_concentrations[stain], reference.max_concentrations[stain]
    middle, wanted_middle = source.median_concentrations[stain], reference.median_concentrations[stain]
    if largest < LEAST_STAIN or wanted < LEAST_STAIN:
        return amount
    wanted = min(max(wanted, largest / LARGEST_RATIO), largest * LARGEST_RATIO)
    power = 1.0
    if settings["tone"] and 0 < middle < largest and 0 < wanted_middle < wanted:
        power = np.log(wanted_middle / wanted) / np.log(middle / largest)
        power = min(max(power, TONE_LIMITS[0]), TONE_LIMITS[1])
    stained = amount > 0
    return np.where(stained, wanted * np.where(stained, amount / largest, 1) ** power, amount * (wanted / largest))


def scan_approx(settings, source, reference, tables, colors) -> np.ndarray:
    """Non-negative concentrations, matched and mixed; what is bright and colourless keeps its colour, softly."""
    restyled = np.clip(
        of_stains(sparse)(settings | {"concentration_sparsity": 0.0}, source, reference, tables, colors), 0, 255
    )
    levels = look_up(tables, colors)
    low, high = levels.min(axis=0) / 255, levels.max(axis=0) / 255
    too_dark = np.maximum(settings["bright"] - low, 0) / settings["feather"]
    too_colorful = np.maximum(high - low - settings["colorless"], 0) / settings["feather"]
    kept = np.maximum(1 - np.maximum(too_dark, too_colorful), 0)
    return kept * levels + (1 - kept) * restyled


def acd(settings, source, reference, tables, colors) -> np.ndarray:
    """OD' = OD·(D_s w_s)(D_t w_t)⁻¹, by way of the weighted concentrations."""
    density = look_up(np.maximum(-np.log((tables + 1) / 256), 0), colors)
    amounts = np.linalg.solve(source.stain_matrix.T, density) * source.weights[:, None] / reference.weights[:, None]
    return 256 * np.exp(-np.maximum(reference.stain_matrix.T @ amounts, -2)) - 1


def khan(settings, source, reference, tables, colors) -> np.ndarray:
    """Deconvolve; map each stain's intensity by the smoothing spline; mix with the reference's vectors."""
    density = look_up(np.maximum(-np.log((tables + 1) / 256), 0), colors)
    stains, wanted = (np.vstack([m, unit_cross(*m)]) for m in (source.stain_matrix, reference.stain_matrix))
    amounts = np.linalg.solve(stains.T, density)
    for stain in range(2):
        intensity = np.minimum(255 * np.exp(-amounts[stain]), 1000)
        x, y = (
            np.array([-100, *sorted([*each.percentiles[stain].ravel(), 255, 255, 255]), 1000])
            for each in (source, reference)
        )
        mapped = np.clip(smoothing_spline(x, y, 9e-6)(intensity), 1, 255 if settings["residual"] == "drop" else 1000)
        amounts[stain] = -np.log(mapped / 255)
    if settings["residual"] == "drop":
        amounts[2] = 0
    return 256 * np.exp(-(wanted.T @ amounts)) - 1


def unit_cross(first, second) -> np.ndarray:
    normal = np.cross(first, second)
    return normal / np.linalg.norm(normal)


def smoothing_spline(x, y, p: float) -> Callable:
    """Minimise p·Σ(y − f)² + (1 − p)·∫f″² by Reinsch's algorithm: (R + λ·Qᵀ·W⁻¹·Q)·γ = Qᵀ·y, f = y − λ·W⁻¹·Q·γ."""
    places = np.unique(x)
    weight = np.array([(x == place).sum() for place in places], float)
    mean = np.array([y[x == place].mean() for place in places])
    step, number = np.diff(places), len(places)
    q, r = np.zeros((number, number - 2)), np.zeros((number - 2, number - 2))
    for i in range(number - 2):
        q[i : i + 3, i] = 1 / step[i], -1 / step[i] - 1 / step[i + 1], 1 / step[i + 1]
        r[i, i] = (step[i] + step[i + 1]) / 3
        if i:
            r[i, i - 1] = r[i - 1, i] = step[i] / 6
    inverse, penalty = np.diag(1 / weight), (1 - p) / p
    bends = np.linalg.solve(r + penalty * q.T @ inverse @ q, q.T @ mean)
    return CubicSpline(places, mean - penalty * inverse @ q @ bends, bc_type="natural")


def stainnet(settings, source, reference, tables, colors) -> np.ndarray:
    """ReLU(W·x + b), twice, and once without, on x/127.5 − 1 of the levels; in shares of the wanted glass."""
    weights = {name: np.array(value) for name, value in settings["weights"].items()}
    values = colors.T / 127.5 - 1
    for layer in (1, 2, 3):
        values = weights[f"weight{layer}"] @ values + weights[f"bias{layer}"][:, None]
        values = np.maximum(values, 0) if layer < 3 else values
    levels = np.clip((values + 1) * 127.5, 0, 255)
    return np.clip((levels + 1) / (reference.white_point[:, None] + 1) * 256 - 1, 0, 255)


def lattice(settings, source, reference, tables, colors) -> np.ndarray:
    """SciPy's multilinear interpolation of the levels, on colours as scanned; in shares of the wanted glass."""
    levels = np.array(settings["table"]["levels"])
    axis = np.linspace(0, 255, len(levels))
    made = np.clip(RegularGridInterpolator((axis, axis, axis), levels)(colors.astype(float)).T, 0, 255)
    return np.clip((made + 1) / (reference.white_point[:, None] + 1) * 256 - 1, 0, 255)


RESTYLES: dict[str, Callable] = {
    "reinhard": reinhard,
    "reinhard_modified": reinhard_modified,
    "histogram": histogram,
    "ruifrok": of_stains(deconvolved),
    "macenko": of_stains(least_squares),
    "vahadane": of_stains(sparse),
    "khan": khan,
    "acd": acd,
    "scan_approx": scan_approx,
    "stainnet": stainnet,
    "lattice": lattice,
}
"""One formula for every method; a new method adds one here."""


# ---- the whole map ----------------------------------------------------------------------------------------------


def expected_map(normalizer, appearance) -> Callable[[np.ndarray], np.ndarray]:
    """The function of colours (n, 3) uint8 that a fitted normalizer's map must tabulate.

    With `background="none"` it is the method's formula. Otherwise colours near glass, T = (I+1)/(W+1), go to the
    wanted white, and glass fades into tissue by a smoothstep of the densest channel's optical density.
    """
    settings, reference = normalizer.settings(), normalizer.reference_
    restyle, tables = RESTYLES[normalizer.name], balanced(appearance.white_point)
    background = settings["background"]

    def evaluate(colors: np.ndarray) -> np.ndarray:
        restyled = restyle(settings, appearance, reference, tables, colors)
        if background == "none":
            return restyled.T
        light = (LEVELS + 1) / (appearance.white_point[:, None] + 1)
        densest = look_up(-np.log(light), colors).max(axis=0)
        t = np.clip((densest - GLASS_ENDS) / (TISSUE_BEGINS - GLASS_ENDS), 0, 1)
        glass = 1 - (3 * t**2 - 2 * t**3)
        blend = glass * look_up(light, colors) + (1 - glass) * (np.clip(restyled, 0, 255) + 1) / 256
        white = {"match": reference.white_point, "keep": appearance.white_point, "white": np.full(3, 255.0)}
        return (blend * (white[background][:, None] + 1) - 1).T

    return evaluate


@dataclass(frozen=True)
class Comparison:
    """How a table agrees with an oracle.

    Attributes:
        wrong: values that differ although the oracle is further than 1e-6 from a rounding tie.
        forgiven: values that differ where it is not.
        example: a colour with a wrong value, what the table has, what the oracle says; None without one.
    """

    wrong: int
    forgiven: int
    example: tuple | None


def compare(table: np.ndarray, oracle: Callable, colors: np.ndarray | None = None) -> Comparison:
    """A table (256, 256, 256, 3) against an oracle, for all colours or for those given, in two threads."""
    everything = colors is None
    pieces = [np.s_[red] for red in range(256)] if everything else np.array_split(colors, 8)
    plane = np.indices((256, 256), np.uint8).reshape(2, -1).T

    def piece(part) -> tuple[int, int, tuple | None]:
        chosen = np.column_stack([np.full(len(plane), part, np.uint8), plane]) if everything else part
        got = table[part].reshape(-1, 3) if everything else table[tuple(part.T)]
        values = np.clip(oracle(chosen), 0, 255)
        differs = np.rint(values) != got
        if not differs.any():
            return 0, 0, None
        tie = np.abs(values - np.floor(values) - 0.5) < 1e-6
        rows = np.flatnonzero((differs & ~tie).any(axis=1))
        example = None
        if len(rows):
            example = chosen[rows[0]].tolist(), got[rows[0]].tolist(), values[rows[0]].tolist()
        return int((differs & ~tie).sum()), int((differs & tie).sum()), example

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(piece, pieces))
    example = next((result[2] for result in results if result[2]), None)
    return Comparison(sum(r[0] for r in results), sum(r[1] for r in results), example)
