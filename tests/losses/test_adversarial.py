"""Adversarial losses against the formulas that the papers print, in float64 NumPy."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from restain.losses.adversarial import ADVERSARIAL, bce, lsgan  # noqa: E402  (after the skip)

SHAPES = [(1,), (2, 1, 3, 5), (4, 1, 1, 1)]


def some_logits(shape: tuple[int, ...], scale: float = 3.0):
    values = np.random.default_rng(len(shape)).normal(0, scale, shape)
    return torch.tensor(values, dtype=torch.float64, requires_grad=True), values


@pytest.mark.parametrize("shape", SHAPES)
def test_bce_is_minus_the_logarithm_of_the_sigmoid(shape: tuple[int, ...]) -> None:
    logits, values = some_logits(shape)
    probability = 1 / (1 + np.exp(-values))
    assert bce(logits, True).item() == pytest.approx(-np.log(probability).mean(), rel=1e-12)
    assert bce(logits, False).item() == pytest.approx(-np.log(1 - probability).mean(), rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_lsgan_is_the_mean_squared_distance_to_one_or_zero(shape: tuple[int, ...]) -> None:
    logits, values = some_logits(shape)
    assert lsgan(logits, True).item() == pytest.approx(((values - 1) ** 2).mean(), rel=1e-12)
    assert lsgan(logits, False).item() == pytest.approx((values**2).mean(), rel=1e-12)


def test_gradients_are_the_derivatives() -> None:
    """Of BCE: σ(x) − label, over the number of logits; of LSGAN: twice the distance."""
    for real in (True, False):
        logits, values = some_logits((2, 1, 4, 4))
        bce(logits, real).backward()
        np.testing.assert_allclose(logits.grad.numpy(), (1 / (1 + np.exp(-values)) - real) / values.size, rtol=1e-10)
        logits, values = some_logits((2, 1, 4, 4))
        lsgan(logits, real).backward()
        np.testing.assert_allclose(logits.grad.numpy(), 2 * (values - real) / values.size, rtol=1e-10)


def test_a_generator_that_is_found_out_learns_most() -> None:
    """Non-saturating: with the discriminator certain of a fake, −log D(G) has the gradient −1; what papers print,
    log(1 − D(G)), has none."""
    certain = torch.tensor([-30.0], dtype=torch.float64, requires_grad=True)
    bce(certain, True).backward()
    assert certain.grad.item() == pytest.approx(-1.0, abs=1e-9)
    printed = torch.tensor([-30.0], dtype=torch.float64, requires_grad=True)
    torch.log(1 - torch.sigmoid(printed)).mean().backward()
    assert abs(printed.grad.item()) < 1e-9


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([-1e4, 1e4], requires_grad=True)
    for real in (True, False):
        loss = bce(logits, real)
        assert loss.item() == pytest.approx(5e3)
        loss.backward()
        assert torch.isfinite(logits.grad).all()


def test_means_do_not_depend_on_the_size_of_the_map() -> None:
    small, large = torch.full((1, 1, 2, 2), 0.3), torch.full((4, 1, 30, 30), 0.3)
    for loss in ADVERSARIAL.values():
        assert loss(small, True).shape == ()
        torch.testing.assert_close(loss(small, True), loss(large, True))


def test_the_losses_are_named_and_cannot_be_changed() -> None:
    assert dict(ADVERSARIAL) == {"lsgan": lsgan, "bce": bce}
    with pytest.raises(TypeError):
        ADVERSARIAL["wgan"] = bce  # type: ignore[index]
