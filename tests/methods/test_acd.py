"""Adaptive colour deconvolution: its gradients, its optimum, and that it draws the same colours every time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import restain
from restain import ColorHistogram
from restain.color.spaces import rgb_to_density
from restain.errors import FormatError, InputError
from restain.methods.acd import DENSITIES, START_ANGLES, draw, stain_rows
from restain.methods.stain_vectors import RUIFROK_HE, angle_between
from restain.phantom import STAINS_A, STAINS_B, Phantom, Scanner, make_phantom

COLORS = np.random.default_rng(3).integers(30, 220, (400, 3))
DENSITY = rgb_to_density(COLORS)


def objective(density: torch.Tensor, angles: torch.Tensor, weights: torch.Tensor, method: restain.ACD) -> torch.Tensor:
    """The paper's loss, a second time, for automatic differentiation."""
    alpha, beta = angles
    rows = torch.stack([alpha.cos() * beta.sin(), alpha.cos() * beta.cos(), alpha.sin()], dim=1)
    h, e, rest = (density @ torch.linalg.inv(rows) * torch.cat([weights, torch.ones(1, dtype=torch.float64)])).T
    both = torch.stack([h, e, rest])
    return (
        (rest**2).mean()
        + method.correlation * (2 * h * e / (h**2 + e**2)).mean()
        + method.balance * ((1 - method.eta) * h.mean() - method.eta * e.mean()) ** 2
        + method.strength * (method.gamma - both.mean()) ** 2
    )


@given(
    shift=st.lists(st.floats(-0.2, 0.2), min_size=6, max_size=6),
    weights=st.lists(st.floats(0.3, 3), min_size=2, max_size=2),
    settings=st.fixed_dictionaries(
        {"correlation": st.floats(0, 1), "balance": st.floats(0, 20), "eta": st.floats(0.1, 0.9)}
    ),
)
def test_gradients_are_those_of_automatic_differentiation(shift: list, weights: list, settings: dict) -> None:
    method = restain.ACD(**settings)
    angles = START_ANGLES + np.reshape(shift, (2, 3))
    value, by_angle, by_weight = method.loss(DENSITY, angles, np.array(weights))
    tensors = [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in (angles, weights)]
    expected = objective(torch.tensor(DENSITY), *tensors, method)
    expected.backward()
    assert value == pytest.approx(expected.item(), rel=1e-10)
    np.testing.assert_allclose(by_angle, tensors[0].grad.numpy(), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(by_weight, tensors[1].grad.numpy(), rtol=1e-8, atol=1e-9)


def test_a_pixel_without_stain_is_no_division_by_zero() -> None:
    value, *gradients = restain.ACD().loss(np.zeros((3, 3)), START_ANGLES, np.ones(2))
    assert value == pytest.approx(restain.ACD().gamma ** 2)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_the_start_is_ruifrok_and_johnstons() -> None:
    rows = stain_rows(START_ANGLES)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-12)
    for row, published in zip(rows, RUIFROK_HE, strict=False):
        assert angle_between(row, published) < 1.2  # the authors' radians have three digits, and 0.088 for 0.071


def test_the_descent_goes_down(phantom: Phantom) -> None:
    settings = {"seed": 0, "samples": 20_000}
    losses = [restain.ACD(steps=steps, **settings).estimate(phantom.image).loss for steps in (0, 30, 300)]
    assert losses[0] > 3 * losses[1] > 3 * losses[2]


def test_the_descent_is_that_of_another_adagrad(phantom: Phantom) -> None:
    """The same colours, drawn in the same order, through PyTorch's optimiser and its automatic differentiation."""
    method = restain.ACD(background="none", luminosity=None, steps=40, samples=5000, batch=300, seed=7)
    histogram = ColorHistogram.from_image(phantom.image)
    mean = rgb_to_density(histogram.colors).mean(axis=1)
    stained = histogram.where((mean > 0.3) & (mean < 2.144))
    generator = np.random.default_rng(7)
    density = torch.tensor(rgb_to_density(stained.colors))[draw(stained.counts, 5000, generator)]
    angles = torch.tensor(START_ANGLES, requires_grad=True)
    weights = torch.ones(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adagrad([angles, weights], lr=0.05, initial_accumulator_value=0.1, eps=0)
    for _ in range(40):
        optimizer.zero_grad()
        objective(density[generator.integers(0, 5000, 300)], angles, weights, method).backward()
        optimizer.step()
    appearance = method.estimate(histogram)
    np.testing.assert_allclose(appearance.weights[:2], weights.detach(), rtol=1e-9)
    np.testing.assert_allclose(appearance.stain_matrix, stain_rows(angles.detach().numpy()), rtol=0, atol=1e-9)


@pytest.mark.parametrize("stains", [STAINS_A, STAINS_B], ids=["a", "b"])
def test_it_turns_to_the_plane_of_planted_stains(stains: np.ndarray) -> None:
    """Within the plane its wish for balance decides, so the vectors themselves are not those that were planted."""
    amounts = np.random.default_rng(5).gamma(0.5, 1.0, (4000, 2)) * (1.2, 0.8)
    colors = np.clip(256 * np.exp(-amounts @ stains) - 1, 0, 255)
    appearance = restain.ACD(background="none").estimate(ColorHistogram.from_colors(np.rint(colors)))
    planted, start, found = (
        np.cross(*rows[:2]) for rows in (stains, stain_rows(START_ANGLES), appearance.stain_matrix)
    )
    assert angle_between(found, planted) < 4
    assert angle_between(found, planted) < 0.5 * angle_between(start, planted)


def test_equal_parameters_are_the_identity(phantom: Phantom) -> None:
    normalizer = restain.ACD(background="none").fit(phantom.image)
    colors = phantom.image.reshape(-1, 3)
    np.testing.assert_allclose(normalizer.map_colors(colors, normalizer.reference_), colors, rtol=0, atol=1e-9)


def test_only_densities_between_the_limits_count(phantom: Phantom) -> None:
    histogram = ColorHistogram.from_image(phantom.image)
    method = restain.ACD(background="none", luminosity=None)
    mean = rgb_to_density(histogram.colors).mean(axis=1)
    used = histogram.counts[(mean > DENSITIES[0]) & (mean < DENSITIES[1])].sum()
    assert method.estimate(histogram).tissue_pixels == used
    assert 0 < used < histogram.pixels


def test_colours_are_drawn_by_their_counts() -> None:
    counts = np.array([1.0, 0.0, 5.0, 0.5, 3.5])
    drawn = draw(counts, 100_000, np.random.default_rng(0))
    shares = np.bincount(drawn, minlength=5) / 100_000
    np.testing.assert_allclose(shares, counts / 10, atol=0.01)
    assert shares[1] == 0


def test_another_seed_draws_others_and_agrees(phantom: Phantom) -> None:
    first, second = (restain.ACD(seed=seed).estimate(phantom.image) for seed in (0, 1))
    assert (first.stain_matrix != second.stain_matrix).any()
    for row in range(2):
        assert angle_between(first.stain_matrix[row], second.stain_matrix[row]) < 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"eta": 0},
        {"gamma": 1},
        {"balance": -1},
        {"correlation": float("nan")},
        {"batch": 0},
        {"samples": 0},
        {"seed": -1},
        {"learning_rate": 0},
        {"learning_rate": 1e200},
        {"balance": 1e200},
        {"samples": 10**12},
        {"steps": 10**12},
    ],
)
def test_impossible_settings(arguments: dict) -> None:
    with pytest.raises(InputError, match=next(iter(arguments))):
        restain.ACD(**arguments)


def test_tissue_of_two_scanners_comes_nearer() -> None:
    """The same tissue stained twice: normalized, it is nearer to the target than before."""
    source = make_phantom(192, 192, seed=11, stain_matrix=STAINS_A, scanner=Scanner(noise=1.0))
    target = make_phantom(192, 192, seed=11, stain_matrix=STAINS_B, scanner=Scanner(noise=1.0))
    out = restain.ACD().fit(target.image).transform(source.image)
    before, after = (np.abs(image.astype(float) - target.image).mean() for image in (source.image, out))
    assert after < 0.7 * before


IMPOSSIBLE = {
    "no stain": ("stain_matrix", np.array([[0.0, 0, 0], [0.1, 0.9, 0.3], [0, 0, 1]])),
    "one stain": ("stain_matrix", np.array([[0.1, 0.9, 0.3], [0.1, 0.9, 0.3], [0, 0, 1]])),
    "no weight": ("weights", np.array([1.0, 0.0, 1.0])),
    "a negative weight": ("weights", np.array([-1.0, 1.0, 1.0])),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_saved_numbers_that_cannot_be(what: str, reference: Phantom, tmp_path) -> None:
    name, numbers = IMPOSSIBLE[what]
    normalizer = restain.ACD().fit(reference.image)
    normalizer.reference_ = replace(normalizer.reference_, **{name: numbers})
    normalizer.save(tmp_path / "acd.safetensors")
    with pytest.raises(FormatError, match=r"acd\.safetensors is a damaged normalizer .*told apart"):
        restain.load(tmp_path / "acd.safetensors")


@pytest.mark.parametrize("value", [300.0, float("inf"), "many", None])
@pytest.mark.parametrize("name", ["steps", "samples", "batch", "seed"])
def test_numbers_that_are_not_whole(name: str, value) -> None:
    with pytest.raises(InputError, match="wrong type"):
        restain.ACD(**{name: value})
