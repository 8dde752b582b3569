"""Lattices fitted to pairs: against NumPy's least squares, maps that are known, and what is possible at all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator

import restain
from restain.color.regression import PairedColors, assess_lattice, fit_lattice, regress_lattice
from restain.errors import InputError
from restain.phantom import STAINS_B, Phantom, Scanner, make_phantom

EVERYWHERE = np.random.default_rng(9).integers(0, 256, (5000, 3)).astype(float)


def at(levels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """A lattice at colours, by SciPy, not clipped."""
    axis = np.linspace(0, 255, len(levels))
    return RegularGridInterpolator((axis, axis, axis), levels)(np.asarray(colors, float))


def psnr(made: np.ndarray, wanted: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / ((np.clip(made, 0, 255) - wanted) ** 2).mean()))


@pytest.fixture(scope="module")
def tissue() -> tuple[Phantom, Phantom]:
    """Two pieces of tissue from one lab and one scanner."""
    first, second = (make_phantom(256, 256, seed=seed, scanner=Scanner(noise=2.0)) for seed in (11, 12))
    return first, second


@pytest.fixture(scope="module")
def macenko(tissue: tuple[Phantom, Phantom]) -> restain.ColorMap:
    """What Macenko's method makes of them, as one slide, for another lab."""
    target = make_phantom(256, 256, seed=13, stain_matrix=STAINS_B, scanner=Scanner(white=(236.0, 231.0, 228.0)))
    normalizer = restain.Macenko().fit(target.image)
    return normalizer.color_map(normalizer.estimate([each.image for each in tissue]), lazy=True)


# ---- maps that are known ----------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    matrix=st.lists(st.floats(-1, 2), min_size=9, max_size=9),
    shift=st.lists(st.floats(-100, 100), min_size=3, max_size=3),
    size=st.sampled_from([2, 3, 5, 8, 17]),
    seed=st.integers(0, 99),
)
def test_affine_maps_are_recovered_everywhere(matrix: list, shift: list, size: int, seed: int) -> None:
    """Also for colours far from all that were seen, and beyond 0..255."""
    generator = np.random.default_rng(seed)
    seen = np.clip(generator.normal((180, 120, 160), (25, 30, 15), (400, 3)), 0, 255)
    slope = np.reshape(matrix, (3, 3))
    levels = regress_lattice(seen, seen @ slope + shift, generator.integers(1, 1000, 400), size=size)
    np.testing.assert_allclose(at(levels, EVERYWHERE), EVERYWHERE @ slope + shift, rtol=0, atol=0.01)


def test_a_curved_map_is_met_on_colours_that_were_held_out(
    tissue: tuple[Phantom, Phantom], macenko: restain.ColorMap
) -> None:
    histogram = restain.ColorHistogram.from_images([each.image for each in tissue])
    wanted = macenko(histogram.colors[None])[0].astype(float)
    held_out = np.random.default_rng(0).random(len(histogram)) < 0.3
    fitting = [each[~held_out] for each in (histogram.colors, wanted, histogram.counts)]
    made = at(regress_lattice(*fitting), histogram.colors[held_out])
    affine = at(regress_lattice(*fitting, size=2, smoothness=1e9), histogram.colors[held_out])
    assert psnr(made, wanted[held_out]) > 50
    assert psnr(affine, wanted[held_out]) < 40  # the map is curved


def test_a_curved_map_is_met_on_other_tissue(tissue: tuple[Phantom, Phantom], macenko: restain.ColorMap) -> None:
    first, second = (PairedColors.from_images(each.image, macenko(each.image)) for each in tissue)
    fitted = fit_lattice(first)
    new = ~np.isin(second.codes, first.codes)
    assert new.mean() > 0.3
    assert psnr(at(fitted.levels, second.colors[new]), second.means[new]) > 45
    assert assess_lattice(fitted.levels, second).psnr > 52
    student = restain.Lattice(table={"levels": fitted.levels}, background="none")
    difference = student.transform(tissue[1].image).astype(int) - macenko(tissue[1].image)
    assert (np.abs(difference) <= 1).mean() > 0.99


def test_noise_is_averaged_out(tissue: tuple[Phantom, Phantom]) -> None:
    """A teacher that errs by some levels at each pixel; the mean of many is near what it means."""
    source = tissue[0].image

    def gamma(colors: np.ndarray) -> np.ndarray:
        return 200 * (colors / 255) ** 1.3 + 20

    noise = np.random.default_rng(1).normal(0, 10, source.shape)
    noisy = np.clip(np.rint(gamma(source) + noise), 0, 255).astype(np.uint8)
    pairs = PairedColors.from_images(source, noisy)
    fitted = fit_lattice(pairs, smoothness=300.0)
    pixels = source.reshape(-1, 3)
    error = np.sqrt(((at(fitted.levels, pixels) - gamma(pixels)) ** 2).mean())
    means = np.sqrt((pairs.counts[:, None] * (pairs.means - gamma(pairs.colors)) ** 2).sum() / pairs.pixels / 3)
    assert means > 5  # most colours were seen once or twice
    assert error < 0.8


# ---- least squares ----------------------------------------------------------------------------------------------


def by_least_squares(source, target, weights, size: int, smoothness: float, ridge: float) -> np.ndarray:
    """The same sums of squares, written out row by row and minimised by NumPy, twice: the affine map, and the rest."""
    mean, shift = np.average(source, axis=0, weights=weights), np.average(target - source, axis=0, weights=weights)
    share = np.sqrt(weights / weights.sum())[:, None]
    rows = np.vstack([share * (source - mean), np.sqrt(1e-4) * np.eye(3)])
    slope = np.linalg.lstsq(rows, np.vstack([share * (target - source - shift), np.zeros((3, 3))]), rcond=None)[0]

    def affine(colors: np.ndarray) -> np.ndarray:
        return colors + shift + (colors - mean) @ slope

    axis = np.linspace(0, 255, size)
    basis = np.eye(size**3).reshape(size, size, size, -1)
    interpolation = RegularGridInterpolator((axis, axis, axis), basis)(source)
    scale = (size - 1) / 32
    blocks = [np.sqrt(weights)[:, None] * interpolation, np.sqrt(ridge / scale**3) * np.eye(size**3)]
    for first in range(3):
        for second in range(3):
            bends = np.diff(np.diff(basis, axis=first), axis=second).reshape(-1, size**3)
            blocks.append(np.sqrt(smoothness * scale) * bends)
    wanted = np.zeros((sum(map(len, blocks)), 3))
    wanted[: len(source)] = np.sqrt(weights)[:, None] * (target - affine(source))
    residual = np.linalg.lstsq(np.vstack(blocks), wanted, rcond=None)[0]
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    return affine(grid.reshape(-1, 3)).reshape(grid.shape) + residual.reshape(grid.shape)


@settings(max_examples=15)
@given(
    size=st.sampled_from([2, 3, 4, 5]),
    number=st.integers(1, 80),
    smoothness=st.sampled_from([0.01, 1.0, 100.0]),
    ridge=st.sampled_from([1e-4, 1e-2, 1.0]),
    seed=st.integers(0, 99),
)
def test_small_lattices_are_those_of_least_squares(
    size: int, number: int, smoothness: float, ridge: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    source, target = generator.uniform(0, 255, (2, number, 3))
    weights = generator.integers(1, 100, number).astype(float)
    levels = regress_lattice(source, target, weights, size=size, smoothness=smoothness, ridge=ridge)
    expected = by_least_squares(source, target, weights, size, smoothness, ridge)
    np.testing.assert_allclose(levels, expected, rtol=0, atol=0.01)


def test_a_hundred_pixels_weigh_as_much_as_one_colour_a_hundred_times() -> None:
    generator = np.random.default_rng(2)
    source, target = generator.uniform(0, 255, (2, 50, 3))
    counts = generator.integers(1, 9, 50)
    one = regress_lattice(source, target, counts, size=5)
    many = regress_lattice(np.repeat(source, counts, axis=0), np.repeat(target, counts, axis=0), size=5)
    np.testing.assert_allclose(one, many, rtol=0, atol=1e-3)


def test_same_input_same_bytes(tissue: tuple[Phantom, Phantom], macenko: restain.ColorMap) -> None:
    pairs = PairedColors.from_images(tissue[0].image, macenko(tissue[0].image))
    once, again = (fit_lattice(pairs, size=17).levels.tobytes() for _ in range(2))
    assert once == again


def test_more_colours_than_are_weighed_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(3)
    source, target = generator.integers(0, 256, (2, 1000, 3))
    whole = regress_lattice(source, target, size=6)
    pairs = PairedColors.from_images(source[None].astype(np.uint8), target[None].astype(np.uint8))
    quality = assess_lattice(whole, pairs)
    monkeypatch.setattr("restain.color.regression._CHUNK", 77)
    np.testing.assert_allclose(regress_lattice(source, target, size=6), whole, rtol=0, atol=1e-6)
    assert assess_lattice(whole, pairs).rmse == pytest.approx(quality.rmse, rel=1e-12)


# ---- colours that were never seen -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "became"),
    [
        ([[100, 120, 130]], [[110, 120, 125]]),  # one colour
        ([[90, 90, 90], [200, 200, 200], [50, 50, 50]], [[100, 90, 85], [210, 200, 195], [60, 50, 45]]),  # grays
        ([[0, 0, 0], [0, 0, 255]], [[10, 0, -5], [10, 0, 250]]),
    ],
)
def test_where_colours_do_not_spread_differences_stay_as_they_are(seen: list, became: list) -> None:
    for size in (2, 9, 33):
        levels = regress_lattice(seen, became, size=size)
        np.testing.assert_allclose(at(levels, EVERYWHERE), EVERYWHERE + np.array([10, 0, -5]), rtol=0, atol=0.01)


def test_far_from_all_colours_the_lattice_returns_to_the_affine_map() -> None:
    """A map that bends upwards in the middle of the cube leaves its corners alone, the more the larger the ridge."""
    generator = np.random.default_rng(4)
    seen = generator.normal(128, 12, (3000, 3))
    bent = seen + 0.02 * (seen - 128) ** 2
    corners = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 255.0]])
    affine = at(regress_lattice(seen, bent, size=2, smoothness=1e12), corners)
    fits = [regress_lattice(seen, bent, size=17, ridge=ridge) for ridge in (1e-6, 1e-4, 1e-2, 1.0)]
    distance = [np.abs(at(levels, corners) - affine).max() for levels in fits]
    assert sorted(distance, reverse=True) == distance
    assert distance[-1] < 2
    assert distance[1] < 100  # the default; the parabola itself is 320 levels away


def test_smoother_lattices_bend_less_and_are_further_from_the_colours() -> None:
    generator = np.random.default_rng(5)
    pairs = PairedColors.from_images(*generator.integers(0, 256, (2, 60, 60, 3), dtype=np.uint8))
    fits = [fit_lattice(pairs, size=9, smoothness=each) for each in (0.01, 1.0, 100.0)]
    bends = [sum((np.diff(fit.levels, 2, axis=axis) ** 2).sum() for axis in range(3)) for fit in fits]
    assert sorted(bends, reverse=True) == bends
    # Before clipping, which the report does.
    errors = [((at(fit.levels, pairs.colors) - pairs.means) ** 2).mean() for fit in fits]
    assert sorted(errors) == errors


# ---- the report -------------------------------------------------------------------------------------------------


def test_how_near_a_lattice_comes() -> None:
    """Two colours: one became 100 and 110, the other 50 twice; the lattice is the identity."""
    source = np.array([[[105] * 3, [105] * 3, [60] * 3, [60] * 3]], np.uint8)
    target = np.array([[[100] * 3, [110] * 3, [50] * 3, [50] * 3]], np.uint8)
    axis = np.array([0.0, 255.0])
    identity = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    quality = assess_lattice(identity, PairedColors.from_images(source, target))
    assert quality.colors == 2
    assert quality.pixels == 4
    assert quality.unexplained == pytest.approx(50 / np.var([100, 110, 50, 50]) / 4)
    assert quality.best_psnr == pytest.approx(10 * np.log10(255**2 / 12.5))
    assert quality.rmse == pytest.approx(np.sqrt(200 / 4))
    assert quality.psnr == pytest.approx(10 * np.log10(255**2 / ((25 + 25 + 100 + 100) / 4)))
    assert quality.psnr == pytest.approx(psnr(source.astype(float), target))


def test_a_lattice_is_judged_as_it_is_applied() -> None:
    """Clipped: beyond white there is no farther."""
    white = np.full((2, 2, 3), 255, np.uint8)
    quality = assess_lattice(np.full((2, 2, 2, 3), 300.0), PairedColors.from_images(white, white))
    assert quality.rmse == 0
    assert quality.psnr == np.inf


def test_the_report_of_a_fit_is_what_its_pixels_say(tissue: tuple[Phantom, Phantom]) -> None:
    source = tissue[0].image
    target = np.clip(source * 0.8 + np.random.default_rng(6).normal(20, 5, source.shape), 0, 255).astype(np.uint8)
    pairs = PairedColors.from_images(source, target)
    fitted = fit_lattice(pairs, size=9)
    assert fitted.psnr == pytest.approx(psnr(at(fitted.levels, source.reshape(-1, 3)), target.reshape(-1, 3)), abs=1e-6)
    assert fitted.psnr <= fitted.best_psnr
    assert 0 < fitted.unexplained < 0.1
    assert vars(assess_lattice(fitted.levels, pairs)) == {k: v for k, v in vars(fitted).items() if k != "levels"}


def test_a_teacher_that_is_a_map_of_colours_is_explained_wholly(
    tissue: tuple[Phantom, Phantom], macenko: restain.ColorMap
) -> None:
    fitted = fit_lattice(PairedColors.from_images(tissue[0].image, macenko(tissue[0].image)), size=5)
    assert fitted.unexplained == 0
    assert fitted.best_psnr == float("inf")
    black = np.zeros((4, 4, 3), np.uint8)
    alike = fit_lattice(PairedColors.from_images(black, black), size=2)
    assert alike.unexplained == 0


# ---- what is refused --------------------------------------------------------------------------------------------

ONE = np.full((1, 3), 100.0)
IMPOSSIBLE = {
    "nothing": (lambda: regress_lattice(np.zeros((0, 3)), np.zeros((0, 3))), "no colours"),
    "two channels": (lambda: regress_lattice(ONE[:, :2], ONE[:, :2]), r"wanted \(n, 3\)"),
    "another number": (lambda: regress_lattice(ONE, np.zeros((2, 3))), r"wanted \(n, 3\)"),
    "counts of another number": (lambda: regress_lattice(ONE, ONE, [1, 2]), r"wanted \(n, 3\)"),
    "colours beyond 255": (lambda: regress_lattice(ONE * 3, ONE), r"0\.\.255"),
    "colours that are none": (lambda: regress_lattice(ONE * np.nan, ONE), r"0\.\.255"),
    "wanted colours that are none": (lambda: regress_lattice(ONE, ONE * np.nan), "finite"),
    "counts of nothing": (lambda: regress_lattice(ONE, ONE, [0]), "above 0"),
    "infinite counts": (lambda: regress_lattice(ONE, ONE, [np.inf]), "finite"),
    "one point": (lambda: regress_lattice(ONE, ONE, size=1), r"2\.\.65"),
    "too many points": (lambda: regress_lattice(ONE, ONE, size=66), r"2\.\.65"),
    "no smoothness": (lambda: regress_lattice(ONE, ONE, smoothness=0.0), "above 0"),
    "a negative ridge": (lambda: regress_lattice(ONE, ONE, ridge=-1.0), "above 0"),
    "no pairs": (lambda: fit_lattice(PairedColors()), "no colours"),
    "no pairs to judge by": (lambda: assess_lattice(np.zeros((2, 2, 2, 3)), PairedColors()), "no pairs"),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_what_cannot_be_fitted_is_refused(what: str) -> None:
    attempt, message = IMPOSSIBLE[what]
    with pytest.raises(InputError, match=message):
        attempt()
