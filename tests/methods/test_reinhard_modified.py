"""Modified Reinhard against its formula on pixels, with scikit-image."""

import numpy as np
import pytest
from skimage.color import lab2rgb, rgb2lab

from restain import ModifiedReinhard
from restain.phantom import STAINS_B, Phantom, make_phantom


@pytest.fixture(scope="module")
def pale() -> Phantom:
    """Much less contrast than the others."""
    return make_phantom(128, 128, seed=3, stain_matrix=STAINS_B, strength=(0.4, 0.4))


def plain(source: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray]:
    """Roy et al. 2021: q, and the picture (float levels, clipped)."""
    lab, wanted = rgb2lab(source), rgb2lab(target)
    q = (wanted[..., 0].std() - lab[..., 0].std()) / wanted[..., 0].std()
    if q <= 0:
        q = 0.05
    mean = lab.mean((0, 1))
    lightness = mean[0] + (lab[..., 0] - mean[0]) * (1 + q)
    chroma = wanted.mean((0, 1))[1:] + (lab[..., 1:] - mean[1:])
    return q, lab2rgb(np.dstack([lightness, chroma])) * 255


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB")
@pytest.mark.parametrize("swapped", [False, True], ids=["more contrast wanted", "less contrast wanted"])
def test_equals_the_formula_on_pixels(swapped: bool, phantom: Phantom, pale: Phantom) -> None:
    source, target = (phantom, pale) if swapped else (pale, phantom)
    q, expected = plain(source.image, target.image)
    assert (q == 0.05) == swapped
    normalizer = ModifiedReinhard(background="none", luminosity=None).fit(target.image)
    result = normalizer.transform(source.image)
    tie = np.abs(expected - np.floor(expected) - 0.5) < 1e-4
    np.testing.assert_array_equal(result[~tie], np.rint(expected)[~tie])
    assert tie.mean() < 0.001


def test_the_spread_of_chroma_stays(pale: Phantom, phantom: Phantom) -> None:
    normalizer = ModifiedReinhard(background="none", luminosity=None).fit(phantom.image)
    colors = pale.image.reshape(-1, 3)
    mapped = normalizer.map_colors(colors, normalizer.estimate(pale.image))
    before, after = rgb2lab(colors / 255.0), rgb2lab(mapped / 255.0)
    np.testing.assert_allclose(after[:, 1:].std(axis=0), before[:, 1:].std(axis=0), atol=1e-3)
    np.testing.assert_allclose(after[:, 1:].mean(axis=0), rgb2lab(phantom.image).mean((0, 1))[1:], atol=1e-3)


def test_lightness_is_never_compressed_nor_turned_over(phantom: Phantom, pale: Phantom) -> None:
    grays = np.arange(150, 236)[:, None].repeat(3, axis=1)  # none of which is stretched to below black
    for source, target in ((phantom, pale), (pale, phantom), (phantom, phantom)):
        normalizer = ModifiedReinhard(background="none", luminosity=None).fit(target.image)
        mapped = normalizer.map_colors(grays, normalizer.estimate(source.image))
        steps = np.diff(rgb2lab(mapped / 255.0)[:, 0]) / np.diff(rgb2lab(grays / 255.0)[:, 0])
        assert steps.min() > 1
