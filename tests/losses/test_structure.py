"""SSIM against scikit-image, and against the formula by NumPy where that has none."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from skimage.metrics import structural_similarity  # noqa: E402  (after the skip)

from restain.errors import InputError  # noqa: E402
from restain.losses.structure import ssim  # noqa: E402


def pair(shape: tuple[int, ...] = (2, 1, 24, 31), seed: int = 0, dtype: torch.dtype = torch.float64):
    """Two images that have something in common, in 0..1."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand(shape, generator=generator, dtype=dtype)
    return first, (0.7 * first + 0.3 * torch.rand(shape, generator=generator, dtype=dtype)).clamp(0, 1)


def skimage_ssim(x: np.ndarray, y: np.ndarray, data_range: float = 1.0) -> float:
    """Of one image (C, H, W); its mean leaves out the 5 pixels of the border, as `ssim` does."""
    return structural_similarity(
        x, y, gaussian_weights=True, sigma=1.5, win_size=11, use_sample_covariance=False, data_range=data_range,
        channel_axis=0,
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(2, 1, 24, 31), (3, 3, 11, 40), (1, 2, 64, 64)])
def test_windowed_is_scikit_images(shape: tuple[int, ...]) -> None:
    x, y = pair(shape)
    found = ssim(x, y)
    assert found.shape == shape[:1]
    for number in range(shape[0]):
        assert found[number].item() == pytest.approx(skimage_ssim(x[number].numpy(), y[number].numpy()), abs=1e-12)


def test_windowed_is_scikit_images_in_float32() -> None:
    """Also where the variance is small beside the square of the mean."""
    x, y = pair((2, 1, 64, 64))
    for contrast in (1.0, 0.05):
        first, second = 0.9 + contrast * (x - 0.9), 0.9 + contrast * (y - 0.9)
        wanted = [skimage_ssim(a.numpy(), b.numpy()) for a, b in zip(first, second, strict=True)]
        np.testing.assert_allclose(ssim(first.float(), second.float()).numpy(), wanted, rtol=0, atol=1e-5)


def test_the_range_of_the_values_matters_only_as_given() -> None:
    x, y = pair()
    torch.testing.assert_close(ssim(255 * x, 255 * y, data_range=255.0), ssim(x, y), rtol=1e-12, atol=0)
    wanted = skimage_ssim(x[0].numpy(), y[0].numpy(), data_range=3.0)
    assert ssim(x, y, data_range=3.0)[0].item() == pytest.approx(wanted, abs=1e-12)


def test_global_is_the_formula_of_the_whole_image() -> None:
    x, y = pair((2, 2, 7, 5))
    for number in range(2):
        values = []
        for a, b in zip(x[number].numpy(), y[number].numpy(), strict=True):
            c1, c2, covariance = 1e-4, 9e-4, ((a - a.mean()) * (b - b.mean())).mean()
            brightness = (2 * a.mean() * b.mean() + c1) / (a.mean() ** 2 + b.mean() ** 2 + c1)
            values.append(brightness * (2 * covariance + c2) / (a.var() + b.var() + c2))
        assert ssim(x, y, "global")[number].item() == pytest.approx(np.mean(values), rel=1e-12)


def test_cs_is_windowed_without_brightness() -> None:
    """Of windows that have the same mean on both sides it is all that there is; adding a constant costs nothing."""
    x, y = pair()
    torch.testing.assert_close(ssim(x, x + 0.3, "cs"), torch.ones(2, dtype=torch.float64))
    assert (ssim(x, x + 0.3) < 0.95).all()
    torch.testing.assert_close(ssim(x, y + 0.1, "cs"), ssim(x, y, "cs"))
    # With C1 beyond all brightness its term is 1: scikit-image, asked by a K1 that hides it, gives cs.
    wanted = structural_similarity(
        x[0, 0].numpy(), y[0, 0].numpy(), gaussian_weights=True, sigma=1.5, win_size=11, use_sample_covariance=False,
        data_range=1.0, K1=1e8,
    )  # fmt: skip
    assert ssim(x, y, "cs")[0].item() == pytest.approx(wanted, abs=1e-10)


@pytest.mark.parametrize("mode", ["windowed", "global", "cs"])
def test_equal_images_have_one(mode) -> None:
    x, y = pair()
    torch.testing.assert_close(ssim(x, x, mode), torch.ones(2, dtype=torch.float64))
    flat = torch.full((1, 1, 16, 16), 0.4, requires_grad=True)
    value = ssim(flat, torch.full_like(flat, 0.4), mode)
    assert value.item() == pytest.approx(1, abs=1e-6)
    value.sum().backward()
    assert torch.isfinite(flat.grad).all()
    assert (ssim(x, y, mode) < 1).all()
    torch.testing.assert_close(ssim(x, y, mode), ssim(y, x, mode))


@pytest.mark.parametrize("mode", ["windowed", "global", "cs"])
def test_gradients_are_right(mode) -> None:
    x, y = pair((2, 1, 12, 13))
    assert torch.autograd.gradcheck(lambda a, b: ssim(a, b, mode), (x.requires_grad_(), y.requires_grad_()))


def test_only_windows_see_a_blur() -> None:
    """Why windowed is the default: sharp and blurred look nearly alike to the statistics of the whole image."""
    x, _ = pair((1, 1, 64, 64))
    coarse = torch.nn.functional.interpolate(x[..., :8, :8], scale_factor=8, mode="bicubic").clamp(0, 1)
    sharp = (coarse + 0.1 * (x - 0.5)).clamp(0, 1)
    blurred = torch.nn.functional.avg_pool2d(sharp, 5, stride=1, padding=2, count_include_pad=False)
    assert ssim(sharp, blurred, "global").item() > 0.9
    assert ssim(sharp, blurred).item() < ssim(sharp, blurred, "global").item() - 0.05


def test_half_precision_is_not_trusted() -> None:
    x, y = pair()
    found = ssim(x.bfloat16(), y.bfloat16())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, ssim(x.bfloat16().float(), y.bfloat16().float()))


def test_what_cannot_be_compared_is_refused() -> None:
    x, y = pair()
    with pytest.raises(InputError, match=r"\(2, 1, 24, 31\) and \(2, 1, 24, 30\)"):
        ssim(x, y[..., :-1])
    with pytest.raises(InputError, match="10 × 31; SSIM's window has 11 × 11"):
        ssim(x[:, :, :10], y[:, :, :10])
    with pytest.raises(InputError, match="mode='local'"):
        ssim(x, y, "local")  # type: ignore[arg-type]
