"""The RGB-uv histogram against loops over pixels and bins in float64, and the Hellinger distance."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from restain.errors import InputError  # noqa: E402  (after the skip)
from restain.losses.color_histogram import color_histogram, hellinger  # noqa: E402


def some(shape: tuple[int, ...] = (2, 3, 6, 5), seed: int = 0, dtype: torch.dtype = torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def slow_histogram(image: np.ndarray, bins: int = 64, bound: float = 3.0, tau: float = 0.02) -> np.ndarray:
    """PAPERS §2.3 word by word: (3, H, W) in 0..1 to (3, bins, bins)."""
    centres = [-bound + 2 * bound * number / (bins - 1) for number in range(bins)]
    counts = np.zeros((3, bins, bins))
    for pixel in image.reshape(3, -1).T:
        brightness = math.sqrt(sum(value * value for value in pixel))
        for channel in range(3):
            a, b = (other for other in range(3) if other != channel)
            u = math.log(pixel[channel] + 1e-6) - math.log(pixel[a] + 1e-6)
            v = math.log(pixel[channel] + 1e-6) - math.log(pixel[b] + 1e-6)
            along_u = np.array([1 / (1 + (abs(u - centre) / tau) ** 2) for centre in centres])
            along_v = np.array([1 / (1 + (abs(v - centre) / tau) ** 2) for centre in centres])
            counts[channel] += brightness * np.outer(along_u, along_v)
    return counts / counts.sum()


@pytest.mark.parametrize(
    "options", [{}, {"bins": 9, "bound": 1.5, "tau": 0.3}, {"bins": 16, "tau": 0.1}], ids=["HistoGAN's", "few", "some"]
)
def test_it_is_the_formula_of_the_paper(options: dict) -> None:
    images = some()
    images[0, :, 0, 0] = torch.tensor([1.0, 0.0, 0.5])  # a channel that is not there
    images[1] *= 0.2
    found = color_histogram(images, size=0, **options)
    for image, histogram in zip(images, found, strict=True):
        np.testing.assert_allclose(histogram.numpy(), slow_histogram(image.numpy(), **options), rtol=1e-9, atol=0)


def test_images_are_resized_bilinearly() -> None:
    """To half the size, each pixel is the mean of four."""
    images = some((1, 3, 8, 8))
    halved = images.reshape(1, 3, 4, 2, 4, 2).mean(dim=(3, 5))
    torch.testing.assert_close(color_histogram(images, size=4), color_histogram(halved, size=0))
    assert not torch.allclose(color_histogram(images, size=4), color_histogram(images, size=0))
    torch.testing.assert_close(color_histogram(halved, size=4), color_histogram(halved, size=0))


def test_each_image_has_a_histogram_of_its_own() -> None:
    images = some((3, 3, 20, 20), dtype=torch.float32)
    found = color_histogram(images)
    assert found.shape == (3, 3, 64, 64)
    assert found.dtype == torch.float32
    assert (found > 0).all()
    torch.testing.assert_close(found.sum(dim=(1, 2, 3)), torch.ones(3))
    for number in range(3):
        torch.testing.assert_close(color_histogram(images[number : number + 1])[0], found[number])


def test_float32_has_digits_enough() -> None:
    images = some((2, 3, 64, 64))
    for size in (0, 150):
        exact, found = color_histogram(images, size=size), color_histogram(images.float(), size=size)
        assert hellinger(exact, found.double()).max() < 1e-4
        if not size:  # resizing rounds before logarithms are taken
            torch.testing.assert_close(found.double(), exact, rtol=1e-3, atol=1e-9)


def test_places_do_not_count_and_neither_does_what_is_out_of_range() -> None:
    images = some((1, 3, 6, 6))
    shuffled = images.flatten(2)[..., torch.randperm(36, generator=torch.Generator().manual_seed(1))].view(1, 3, 6, 6)
    torch.testing.assert_close(color_histogram(shuffled, size=0), color_histogram(images, size=0))
    wide = 3 * images - 1
    torch.testing.assert_close(color_histogram(wide, size=0), color_histogram(wide.clamp(0, 1), size=0))


def test_a_pixel_counts_where_its_quotients_are() -> None:
    """Red e times as much as green and e² times as much as blue: u = 1, v = 2 for red; seven bins from −3 to 3."""
    colour = torch.tensor([0.9, 0.9 / math.e, 0.9 / math.e**2], dtype=torch.float64).view(1, 3, 1, 1)
    found = color_histogram(colour, bins=7, size=0)[0]
    peaks = [divmod(int(channel.argmax()), 7) for channel in found]
    assert peaks == [(4, 5), (2, 4), (1, 2)]
    # The peak's row and column have a share of 1 / (1 + (1 / τ)²) in each neighbour, and less further on.
    assert ((found.amax(dim=(1, 2)) > 0.99 / 3) & (found.amax(dim=(1, 2)) < 1 / 3)).all()


# ---- the distance ------------------------------------------------------------------------------------------------


def test_the_distance_is_hellingers() -> None:
    first, second = color_histogram(some()), color_histogram(some(seed=1) ** 2)
    for number, (p, q) in enumerate(zip(first.numpy(), second.numpy(), strict=True)):
        wanted = math.sqrt(1 - np.sqrt(p * q).sum())  # by the Bhattacharyya coefficient
        assert hellinger(first, second)[number].item() == pytest.approx(wanted, rel=1e-9)


def test_the_distance_is_nothing_for_equal_images_and_one_at_most() -> None:
    for dtype in (torch.float32, torch.float64):
        images = some((2, 3, 32, 32), dtype=dtype)
        assert (hellinger(color_histogram(images), color_histogram(images)) == 0).all()
        red, blue = torch.zeros(2, 1, 3, 8, 8, dtype=dtype)
        red[:, 0] = blue[:, 2] = 1
        # What lies outside of the bins' bound still leaves its tails there.
        distance = hellinger(color_histogram(red), color_histogram(blue))
        assert 0 < distance.item() <= 1
    one = torch.zeros(1, 3, 2, 2)
    one[0, 0, 0, 0] = 1
    torch.testing.assert_close(hellinger(one, one.flip(1)), torch.ones(1))


def test_gradients_are_right() -> None:
    images, other = some((1, 3, 3, 4)), some((1, 3, 3, 4), seed=1)
    wanted = color_histogram(other, bins=8, tau=0.4, size=0)
    assert torch.autograd.gradcheck(
        lambda x: hellinger(color_histogram(x, bins=8, tau=0.4, size=5), wanted), (images.requires_grad_(),)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_where_roots_and_logarithms_have_none(dtype: torch.dtype) -> None:
    """Black and white pixels, channels that are 0, images that are black all over, and images that are equal."""
    mixed = some((1, 3, 12, 12), dtype=dtype)
    mixed[..., :4] = 0
    mixed[:, 0, :4] = 0
    mixed[..., 8:] = 1
    black = torch.zeros_like(mixed)
    for image in (mixed, black):
        for other in (mixed, black, 1 - mixed):
            for size in (0, 7):
                made = image.clone().requires_grad_()
                distance = hellinger(color_histogram(made, size=size), color_histogram(other, size=size))
                assert 0 <= distance.item() <= 1
                distance.sum().backward()
                assert torch.isfinite(made.grad).all()


def test_autocast_does_not_take_digits() -> None:
    images = some((1, 3, 32, 32), dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = color_histogram(images)
    assert torch.equal(inside, color_histogram(images))
    assert color_histogram(images.bfloat16()).dtype == torch.float32


def test_what_is_not_rgb_is_refused() -> None:
    with pytest.raises(InputError, match=r"\(2, 1, 6, 5\); wanted RGB images"):
        color_histogram(some((2, 1, 6, 5)))
