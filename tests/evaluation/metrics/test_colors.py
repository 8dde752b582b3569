"""NMI, histogram distances, stain angles, glass: against scikit-image, OpenCV's formula, planted colours."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.filters import threshold_otsu

from restain.errors import InputError
from restain.evaluation.metrics.background import background_mask, background_shift
from restain.evaluation.metrics.color_distributions import (
    bhattacharyya,
    hellinger,
    nmi,
    nmi_cv,
    nmi_sd,
    nmi_tissue,
    otsu,
)
from restain.evaluation.metrics.stains import stain_angle, stain_vector_angles
from restain.phantom import STAINS_A, STAINS_B, Phantom, Scanner, make_phantom

Pair = tuple[np.ndarray, np.ndarray]


# ---- NMI --------------------------------------------------------------------------------------------------------


@given(hnp.arrays(np.uint8, (7, 9), elements=st.integers(0, 255)))
def test_otsu_as_scikit_image(levels: np.ndarray) -> None:
    assert otsu(levels) == threshold_otsu(levels)


def test_tissue_as_cagans_script(tissue: Phantom) -> None:
    from PIL import Image

    image = tissue.image
    saturation = np.asarray(Image.fromarray(image).convert("HSV"))[..., 1]
    bright = np.logical_and.reduce([image[..., c] > threshold_otsu(image[..., c]) for c in range(3)])
    expected = ~bright & (saturation > threshold_otsu(saturation)) & (image > 50).all(axis=2)
    np.testing.assert_array_equal(nmi_tissue(image), expected)
    level = image[expected].mean(axis=1)
    assert nmi(image) == pytest.approx(np.median(level) / np.percentile(level, 95))


def test_nmi_by_hand() -> None:
    image = np.repeat(np.arange(1, 101, dtype=np.uint8)[:, None, None], 3, axis=2)
    everything = np.ones((100, 1), bool)
    assert nmi(image, everything) == pytest.approx(50.5 / np.percentile(np.arange(1, 101), 95))


def test_without_tissue_nmi_is_not_a_number() -> None:
    white = np.full((20, 20, 3), 250, np.uint8)
    assert math.isnan(nmi(white))
    assert math.isnan(nmi(np.zeros_like(white), np.ones((20, 20), bool)))


def test_cv_and_sd() -> None:
    values = [0.8, 0.9, 1.0, float("nan")]
    assert nmi_sd(values) == pytest.approx(np.std([0.8, 0.9, 1.0]))
    assert nmi_cv(iter(values)) == pytest.approx(np.std([0.8, 0.9, 1.0]) / 0.9)
    with pytest.raises(InputError, match="two or more"):
        nmi_cv(values[2:])


def test_one_picture_for_all_has_no_variation(tissue: Phantom) -> None:
    assert nmi_cv([tissue.image] * 3) == pytest.approx(0)
    others = [make_phantom(96, 96, seed=seed, stain_matrix=s).image for seed, s in ((1, STAINS_A), (2, STAINS_B))]
    assert nmi_cv([tissue.image, *others]) > 0.001


# ---- histograms -------------------------------------------------------------------------------------------------


def test_histogram_distances_by_hand() -> None:
    first = np.array([[0, 0, 0, 200]], np.uint8)
    second = np.array([[0, 200, 200, 200]], np.uint8)
    overlap = 2 * math.sqrt(0.75 * 0.25)
    assert bhattacharyya(first, second) == pytest.approx(-math.log(overlap))
    assert hellinger(first, second) == pytest.approx(math.sqrt(1 - overlap))


def test_histograms_that_do_not_overlap() -> None:
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((5, 6, 3), 255, np.uint8)
    assert bhattacharyya(black, white) == math.inf
    assert hellinger(black, white) == 1


def test_hellinger_as_opencv_defines_bhattacharyya(pair: Pair) -> None:
    def opencv(first: np.ndarray, second: np.ndarray) -> float:
        h1, h2 = (np.bincount(image.ravel(), minlength=256).astype(float) for image in (first, second))
        return math.sqrt(1 - (np.sqrt(h1 * h2)).sum() / math.sqrt(h1.mean() * h2.mean() * 256**2))

    expected = np.mean([opencv(pair[0][..., c], pair[1][..., c]) for c in range(3)])
    assert hellinger(*pair) == pytest.approx(expected)


@given(hnp.arrays(np.uint8, (5, 6, 3)), hnp.arrays(np.uint8, (4, 3, 3)), st.sampled_from([2, 16, 256]))
def test_histogram_distances_are_symmetric_and_bounded(first: np.ndarray, second: np.ndarray, bins: int) -> None:
    assert 0 <= hellinger(first, second, bins=bins) <= 1
    assert bhattacharyya(first, second, bins=bins) >= 0
    assert hellinger(first, second, bins=bins) == pytest.approx(hellinger(second, first, bins=bins))
    shuffled = np.random.default_rng(0).permutation(first.reshape(-1, 3)).reshape(6, 5, 3)
    assert hellinger(first, shuffled, bins=bins) == pytest.approx(0, abs=1e-7)


def test_fewer_bins_give_smaller_distances(pair: Pair) -> None:
    assert hellinger(*pair, bins=16) < hellinger(*pair, bins=64) < hellinger(*pair)
    with pytest.raises(InputError, match="power of two"):
        hellinger(*pair, bins=100)


# ---- stains -----------------------------------------------------------------------------------------------------


def test_the_angle_between_planted_stains() -> None:
    images = [
        make_phantom(256, 256, seed=seed, stain_matrix=stains, scanner=Scanner(noise=1.0)).image
        for seed, stains in ((1, STAINS_A), (2, STAINS_B), (3, STAINS_A))
    ]
    planted = float(stain_vector_angles(STAINS_A, STAINS_B).mean())
    assert planted > 5
    assert stain_angle(images[0], images[1]) == pytest.approx(planted, abs=2.5)
    assert stain_angle(images[0], images[2]) < 3


def test_what_lies_outside_the_mask_of_a_registered_reference_does_not_count() -> None:
    scanner = Scanner(white=(236.0, 231.0, 228.0), noise=1.0)
    reference = make_phantom(256, 256, seed=1, stain_matrix=STAINS_A, scanner=scanner).image
    image = make_phantom(256, 256, seed=1, stain_matrix=STAINS_B, scanner=scanner).image
    mask = np.zeros((256, 256), bool)
    mask[:, 80:] = True
    warped = np.where(mask[..., None], reference, np.uint8(255))
    assert stain_angle(warped, image) != stain_angle(reference, image)
    assert stain_angle(warped, image, mask) == stain_angle(reference[:, 80:], image[:, 80:])
    assert stain_angle(reference[:200], image, mask) == stain_angle(reference[:200], image[:, 80:])  # of another size


def test_angles_by_hand() -> None:
    first = [[1, 1, 0], [0, 1, 1]]
    second = [[1, 0, 0], [0, 0, 1]]
    np.testing.assert_allclose(stain_vector_angles(first, second), [45, 45])


@given(st.permutations([0, 1]), st.lists(st.sampled_from([-2.0, 0.5, 3.0]), min_size=2, max_size=2))
def test_order_sign_and_length_do_not_matter(order: list[int], lengths: list[float]) -> None:
    other = (STAINS_A * np.array(lengths)[:, None])[order]
    np.testing.assert_allclose(stain_vector_angles(STAINS_A, other), 0, atol=1e-5)


@pytest.mark.parametrize("wrong", [np.eye(3), [[0, 0, 0], [1, 1, 1]], [[np.nan, 1, 1], [1, 1, 1]]])
def test_what_is_no_pair_of_stains_is_refused(wrong) -> None:
    with pytest.raises(InputError, match="two rows"):
        stain_vector_angles(STAINS_A, wrong)


def test_without_stain_there_is_no_angle_and_no_warning(tissue: Phantom) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(stain_angle(tissue.image, np.full_like(tissue.image, 245)))


# ---- glass ------------------------------------------------------------------------------------------------------


def scene(glass: tuple[int, int, int]) -> np.ndarray:
    image = np.full((40, 60, 3), (180, 90, 160), np.uint8)
    image[5:25, 10:50] = glass
    return image


def test_tinted_glass_by_hand() -> None:
    source, tinted = scene((245, 245, 245)), scene((244, 223, 230))
    assert background_shift(source, source) == 0
    assert background_shift(source, tinted) == pytest.approx((1 + 22 + 15) / 3)
    assert background_shift(source, tinted, white=(244, 223, 230)) == 0
    assert background_shift(source, source, white=240) == 5


def test_glass_is_found_in_the_source() -> None:
    source = scene((245, 245, 245))
    mask = background_mask(source)
    assert mask.sum() == 20 * 40
    assert mask[5:25, 10:50].all()
    pink = scene((250, 200, 220))  # no glass to be seen in it any more
    assert not background_mask(pink).any()
    assert background_shift(source, pink) > 20
    assert math.isnan(background_shift(pink, source))


def test_glass_is_relative_to_the_white_point() -> None:
    dim = scene((200, 198, 202))
    assert not background_mask(dim).any()
    assert background_mask(dim, (205, 200, 206)).sum() == 800
    assert background_shift(dim, dim, source_white=203) == 0


def test_narrow_gaps_are_no_glass() -> None:
    image = np.full((30, 30, 3), (180, 90, 160), np.uint8)
    image[:, 10:12] = 250
    assert not background_mask(image).any()


@pytest.mark.parametrize("white", [0, 256, np.nan, (1, 2), (240, 240, -1)])
def test_impossible_white_points_are_refused(white) -> None:
    with pytest.raises(InputError, match="white"):
        background_shift(scene((245, 245, 245)), scene((245, 245, 245)), white=white)
