"""Feature distances against LPIPS's formula written out."""

import numpy as np
import pytest

from restain.errors import FormatError, InputError

torch = pytest.importorskip("torch")

from restain.networks.backbones.alexnet import AlexNet  # noqa: E402  (after the skip)
from restain.networks.perceptual import (  # noqa: E402
    LPIPS_TAPS,
    FeatureDistance,
    lpips_heads,
    randomised,
)

CHANNELS = (64, 192, 384, 256, 256)


@pytest.fixture(scope="module")
def trunk():
    return randomised(AlexNet(0)).features


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(2, 3, 96, 80, generator=generator) for _ in range(2)]


def by_hand(trunk, first, second, heads=None) -> np.ndarray:
    """Σ over layers of the mean over places of Σ_c w_c·(â_c − b̂_c)², image by image, in NumPy."""
    mean = np.array([0.485, 0.456, 0.406])[:, None, None]
    deviation = np.array([0.229, 0.224, 0.225])[:, None, None]
    results = []
    for pair in zip(first, second, strict=True):
        maps = [torch.from_numpy((image.numpy() - mean) / deviation).float()[None] for image in pair]
        distances = []
        for index, module in enumerate(trunk):
            maps = [module(each) for each in maps]
            if index in (1, 4, 7, 9, 11):
                a, b = (each[0].double().numpy() for each in maps)
                a, b = (each / (np.sqrt((each**2).sum(axis=0)) + 1e-10) for each in (a, b))
                weights = 1.0 if heads is None else heads[len(distances)].numpy()[:, None, None]
                distances.append((weights * (a - b) ** 2).sum(axis=0).mean())
        results.append(np.mean(distances) if heads is None else np.sum(distances))
    return np.array(results)


def test_unweighted_by_hand(trunk, images) -> None:
    with torch.inference_mode():
        distance = FeatureDistance(trunk, LPIPS_TAPS["alexnet"])(*images)
        np.testing.assert_allclose(distance.numpy(), by_hand(trunk, *images), rtol=1e-4)
    assert (distance > 0).all()
    assert (distance < 2).all()


def test_weighted_by_hand(trunk, images) -> None:
    heads = [torch.rand(count) for count in CHANNELS]
    with torch.inference_mode():
        distance = FeatureDistance(trunk, LPIPS_TAPS["alexnet"], heads)(*images)
        np.testing.assert_allclose(distance.numpy(), by_hand(trunk, *images, heads), rtol=1e-4)


def test_equal_images_are_at_no_distance(trunk, images) -> None:
    assert FeatureDistance(trunk, LPIPS_TAPS["alexnet"])(images[0], images[0]).tolist() == [0, 0]


def test_blue_first_is_a_swap(trunk, images) -> None:
    plain = {"shift": (0.1, 0.2, 0.3), "scale": (1, 2, 3)}
    swapped = FeatureDistance(trunk, (1, 4), bgr=True, **plain)(*images)
    expected = FeatureDistance(trunk, (1, 4), **plain)(*(image.flip(1) for image in images))
    assert torch.equal(swapped, expected)


def test_a_mask_counts_places_within(trunk) -> None:
    first, second = torch.rand(1, 3, 128, 128), torch.rand(1, 3, 128, 128)
    second[..., :64] = first[..., :64]  # equal in the left half
    distance = FeatureDistance(trunk, (1,))
    left = torch.zeros(128, 128, dtype=torch.bool)
    left[:, :48] = True
    assert distance(first, second, left) == 0
    assert distance(first, second, ~left) > distance(first, second) > 0
    with pytest.raises(InputError, match="too small"):
        distance(first, second, torch.zeros(128, 128, dtype=torch.bool))


def test_random_weights_depend_on_the_seed_alone() -> None:
    first, second, other = (randomised(AlexNet(0), seed).features[0].weight for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert float(first.std()) == pytest.approx((2 / 363) ** 0.5, rel=0.05)


def test_heads() -> None:
    state = {f"lin{n}.model.1.weight": torch.rand(1, count, 1, 1) for n, count in enumerate(CHANNELS)}
    assert [head.shape for head in lpips_heads(state, CHANNELS)] == [(count,) for count in CHANNELS]
    with pytest.raises(FormatError, match="no LPIPS"):
        lpips_heads(state, (64, 128, 256, 512, 512))
    with pytest.raises(FormatError, match="no LPIPS"):
        lpips_heads({"weight": torch.zeros(3)}, CHANNELS)
