"""`ColorHistogram`: counts, sums, weights, bins, tissue and flat blocks, against plain NumPy."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from skimage.color import rgb2lab

from restain.color.builder import HistogramBuilder
from restain.color.histogram import ColorHistogram, pack, unpack
from restain.errors import InputError
from restain.methods.macenko import Macenko
from restain.methods.vahadane import Vahadane
from restain.phantom import Phantom

sides = st.integers(1, 20)
images = st.tuples(sides, sides).flatmap(lambda size: hnp.arrays(np.uint8, (*size, 3)))
# Few different colours, so that they repeat.
coarse_images = st.tuples(sides, sides).flatmap(
    lambda size: hnp.arrays(np.uint8, (*size, 3), elements=st.sampled_from([0, 1, 128, 255]))
)


def random_image(seed: int, height: int = 64, width: int = 48, levels: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, levels, (height, width, 3), dtype=np.uint8)


def assert_counts(histogram: ColorHistogram, pixels: np.ndarray) -> None:
    """That `histogram` holds exactly the colours (n, 3) of `pixels`, as NumPy counts them."""
    colors, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    np.testing.assert_array_equal(histogram.colors, colors)
    np.testing.assert_array_equal(histogram.counts, counts)
    assert histogram.codes.dtype == np.uint32
    assert histogram.counts.dtype == np.float64
    assert histogram.pixels == len(pixels.reshape(-1, 3))
    assert len(histogram) == len(colors)


def flat_pixels(image: np.ndarray, usable: np.ndarray | None = None) -> np.ndarray:
    """The pixels (n, 3) of wholly usable 8×8 blocks whose channels all have a standard deviation of at most 4."""
    found = [np.zeros((0, 3), np.uint8)]
    for top in range(0, image.shape[0] - 7, 8):
        for left in range(0, image.shape[1] - 7, 8):
            block = image[top : top + 8, left : left + 8].reshape(-1, 3)
            whole = usable is None or usable[top : top + 8, left : left + 8].all()
            if whole and (block.astype(float).std(axis=0) <= 4).all():
                found.append(block)
    return np.concatenate(found)


# ---- counting ---------------------------------------------------------------------------------------------------


@given(coarse_images)
def test_counts_are_those_of_numpy(image: np.ndarray) -> None:
    assert_counts(ColorHistogram.from_image(image), image)


@pytest.mark.parametrize("levels", [2, 10, 256])
def test_counts_of_larger_images(levels: int) -> None:
    image = random_image(levels, 301, 203, levels)
    assert_counts(ColorHistogram.from_image(image), image)


@pytest.mark.parametrize(
    "view",
    [
        random_image(0)[::-1, ::2],
        np.asfortranarray(random_image(0)),
        random_image(0)[..., ::-1],
        random_image(0).transpose(1, 0, 2),
    ],
    ids=["strided", "fortran", "bgr", "transposed"],
)
def test_counts_of_any_memory_layout(view: np.ndarray) -> None:
    view.setflags(write=False)
    assert_counts(ColorHistogram.from_image(view), view)


def test_codes_are_packed_rgb() -> None:
    histogram = ColorHistogram.from_image(np.array([[[1, 2, 3]]], np.uint8))
    assert histogram.codes.tolist() == [1 * 65536 + 2 * 256 + 3]
    colors = random_image(1)
    np.testing.assert_array_equal(unpack(pack(colors)), colors)


@given(coarse_images, st.randoms(use_true_random=False))
def test_the_order_of_pixels_does_not_matter(image: np.ndarray, random) -> None:
    pixels = image.reshape(-1, 3).tolist()
    random.shuffle(pixels)
    assert ColorHistogram.from_colors(np.array(pixels, np.uint8)) == ColorHistogram.from_colors(image.reshape(-1, 3))


def test_a_builder_starts_again_from_nothing() -> None:
    builder = HistogramBuilder()
    for seed in range(3):
        builder.add(random_image(seed))
        assert_counts(builder.histogram(), random_image(seed))
    assert len(builder.histogram()) == 0


def test_a_builder_absorbs_what_others_have_counted() -> None:
    pictures = [random_image(seed, 64, 64, 30) for seed in range(6)]
    builders = [HistogramBuilder() for _ in range(4)]  # the last one counts nothing
    for number, picture in enumerate(pictures):
        builders[number % 3].add(picture)
    total = HistogramBuilder()
    for builder in builders:
        total.absorb(builder)
        assert len(builder.histogram()) == 0
    assert total.histogram() == ColorHistogram.from_images(pictures)
    builders[0].add(pictures[0])  # whose tables must be empty
    assert builders[0].histogram() == ColorHistogram.from_image(pictures[0])


def test_absorbing_more_pixels_than_a_counter_holds() -> None:
    first, second = HistogramBuilder(), HistogramBuilder()
    image = random_image(0)
    for builder in (first, second):
        builder.add(image)
        for tally in builder._tallies:
            tally._pixels = 1 << 31
    first.absorb(second)
    np.testing.assert_array_equal(first.histogram().counts, 2 * ColorHistogram.from_image(image).counts)


def test_more_pixels_than_a_counter_holds() -> None:
    builder = HistogramBuilder()
    image = random_image(0)
    builder.add(image)
    for tally in builder._tallies:
        tally._pixels = (1 << 32) - 1  # as if that many had been added
    builder.add(image)
    histogram = builder.histogram()
    np.testing.assert_array_equal(histogram.counts, 2 * ColorHistogram.from_image(image).counts)


def test_many_threads_count_what_one_counts() -> None:
    pictures = [random_image(seed, 96, 96, 40) for seed in range(24)]
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(ColorHistogram.from_image, pictures))
    for part, picture in zip(parts, pictures, strict=True):
        assert_counts(part, picture)
    assert ColorHistogram.merged(parts) == ColorHistogram.from_images(pictures)


# ---- masks and alpha --------------------------------------------------------------------------------------------


@given(images.flatmap(lambda image: st.tuples(st.just(image), hnp.arrays(np.bool_, image.shape[:2]))))
def test_masked_pixels_are_left_out(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    image, mask = drawn
    assert_counts(ColorHistogram.from_image(image, mask=mask), image[mask])


def test_transparent_pixels_are_left_out() -> None:
    image = random_image(2)
    alpha = np.random.default_rng(2).choice(np.array([0, 100, 254, 255], np.uint8), image.shape[:2])
    histogram = ColorHistogram.from_image(np.dstack([image, alpha]))
    assert_counts(histogram, image[alpha == 255])


def test_transparent_and_masked_pixels_are_both_left_out() -> None:
    image = random_image(3)
    alpha = np.where(image[..., 0] > 128, 255, 0).astype(np.uint8)
    mask = image[..., 1] > 128
    histogram = ColorHistogram.from_image(np.dstack([image, alpha]), mask=mask)
    assert_counts(histogram, image[mask & (alpha == 255)])


def test_transparent_pixels_of_pil_images_are_left_out() -> None:
    picture = Image.new("LA", (16, 16), (10, 255))
    picture.putpixel((0, 0), (10, 0))
    assert ColorHistogram.from_image(picture).colors.tolist() == [[10, 10, 10]]


def test_wholly_transparent_images_are_empty() -> None:
    histogram = ColorHistogram.from_image(np.zeros((16, 16, 4), np.uint8))
    assert len(histogram) == 0
    assert histogram.pixels == 0
    assert len(histogram.flat) == 0


def test_masks_go_with_their_images() -> None:
    pictures = [random_image(seed, 10 + seed, 12) for seed in range(3)]
    masks = [picture[..., 0] > 100 for picture in pictures]
    histogram = ColorHistogram.from_images(iter(pictures), masks=iter(masks))
    assert_counts(histogram, np.concatenate([p[m] for p, m in zip(pictures, masks, strict=True)]))


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match=r"mask of shape \(48, 64\) for an image of \(64, 48\)"):
        ColorHistogram.from_image(random_image(0), mask=np.ones((48, 64), bool))
    with pytest.raises(InputError, match="mask"):
        ColorHistogram.from_image(np.dstack([random_image(0), np.zeros((64, 48))]).astype(np.uint8), mask=[True])


@pytest.mark.parametrize("number", [1, 3])
def test_as_many_masks_as_images_are_wanted(number: int) -> None:
    with pytest.raises(InputError, match="mask"):
        ColorHistogram.from_images([random_image(0)] * 2, masks=[np.ones((64, 48), bool)] * number)


def test_one_image_is_not_taken_for_many() -> None:
    with pytest.raises(InputError):
        ColorHistogram.from_images(random_image(0))


# ---- flat blocks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deviation", [0.5, 3.9, 4.1, 8.0])
def test_flat_blocks_are_those_of_little_deviation(deviation: float) -> None:
    generator = np.random.default_rng(4)
    noise = generator.normal(0, 1, (75, 90, 3)) * generator.choice([deviation, 20], (75, 90, 1), p=[0.98, 0.02])
    image = np.clip(np.rint(200 + noise), 0, 255).astype(np.uint8)
    expected = flat_pixels(image)
    histogram = ColorHistogram.from_image(image)
    assert_counts(histogram.flat, expected)
    assert histogram.flat.flat is None


def test_blocks_that_a_mask_touches_are_not_flat() -> None:
    image = np.clip(np.rint(np.random.default_rng(5).normal(230, 2, (64, 80, 3))), 0, 255).astype(np.uint8)
    usable = np.random.default_rng(6).random((64, 80)) > 0.01
    expected = flat_pixels(image, usable)
    assert 0 < len(expected) < 64 * 80
    assert_counts(ColorHistogram.from_image(image, mask=usable).flat, expected)
    rgba = np.dstack([image, np.where(usable, 255, 0).astype(np.uint8)])
    assert_counts(ColorHistogram.from_image(rgba).flat, expected)


@pytest.mark.parametrize("size", [(7, 100), (100, 7), (1, 1)])
def test_images_smaller_than_a_block_have_nothing_flat(size: tuple[int, int]) -> None:
    assert len(ColorHistogram.from_image(np.full((*size, 3), 240, np.uint8)).flat) == 0


# ---- from colours -----------------------------------------------------------------------------------------------

repeated = st.lists(
    st.tuples(st.sampled_from([0, 7, 255]), st.sampled_from([0, 9]), st.integers(0, 1), st.integers(0, 5)), max_size=40
)


@given(repeated)
def test_repeated_colours_add_up(rows: list[tuple[int, int, int, int]]) -> None:
    table = np.array(rows, np.int64).reshape(-1, 4)
    histogram = ColorHistogram.from_colors(table[:, :3], table[:, 3])
    assert_counts(histogram, np.repeat(table[:, :3], table[:, 3], axis=0).astype(np.uint8))
    assert histogram.flat is None


def test_colours_count_once_without_counts() -> None:
    pixels = random_image(7).reshape(-1, 3)
    assert_counts(ColorHistogram.from_colors(pixels), pixels)


@pytest.mark.parametrize(
    ("colors", "counts"),
    [
        ([1, 2, 3], None),
        ([[1, 2]], None),
        ([[1, 2, 256]], None),
        ([[1, 2, -1]], None),
        ([[1.0, 2.0, float("nan")]], None),
        ([[1, 2, 3]], [1, 2]),
        ([[1, 2, 3]], [-1]),
        ([[1, 2, 3]], [float("nan")]),
        ([[1, 2, 3]], [float("inf")]),
    ],
)
def test_impossible_colours_and_counts_are_refused(colors, counts) -> None:
    with pytest.raises(InputError):
        ColorHistogram.from_colors(colors, counts)


# ---- sums and weights -------------------------------------------------------------------------------------------


@given(coarse_images, coarse_images)
def test_a_sum_counts_what_both_hold(one: np.ndarray, other: np.ndarray) -> None:
    both = ColorHistogram.from_image(one) + ColorHistogram.from_image(other)
    assert both == ColorHistogram.from_images([one, other])
    assert_counts(both, np.concatenate([one.reshape(-1, 3), other.reshape(-1, 3)]))
    assert_counts(both.flat, np.concatenate([flat_pixels(one), flat_pixels(other)]))


@given(st.lists(coarse_images, min_size=2, max_size=4), st.randoms(use_true_random=False))
def test_the_order_of_summands_does_not_matter(pictures: list[np.ndarray], random) -> None:
    parts = [ColorHistogram.from_image(picture) for picture in pictures]
    total = ColorHistogram.merged(parts)
    random.shuffle(parts)
    assert ColorHistogram.merged(parts) == total


def test_a_sum_leaves_its_parts_as_they_were() -> None:
    one, other = ColorHistogram.from_image(random_image(0)), ColorHistogram.from_image(random_image(1))
    one + other
    assert_counts(one, random_image(0))
    assert_counts(other, random_image(1))


def test_merged_equally_gives_every_part_the_same_weight() -> None:
    small = ColorHistogram.from_image(np.full((8, 8, 3), 10, np.uint8))
    large = ColorHistogram.from_image(np.full((80, 80, 3), 200, np.uint8))
    by_pixels = ColorHistogram.merged([small, large])
    assert by_pixels.counts.tolist() == [64, 6400]
    equally = ColorHistogram.merged([small, large], equally=True)
    np.testing.assert_allclose(equally.counts, [3232, 3232])
    np.testing.assert_allclose(equally.flat.counts, [3232, 3232])


def test_empty_parts_take_no_share() -> None:
    full = ColorHistogram.from_image(random_image(0))
    empty = ColorHistogram.from_image(random_image(0), mask=np.zeros((64, 48), bool))
    assert ColorHistogram.merged([empty, full, empty]) == full
    assert ColorHistogram.merged([empty, full], equally=True) == full
    with pytest.raises(InputError, match="no colours to merge"):
        ColorHistogram.merged([empty])


def test_a_weight_multiplies_all_counts() -> None:
    histogram = ColorHistogram.from_image(np.full((16, 16, 3), 240, np.uint8))
    for heavy in (histogram * 2.5, 2.5 * histogram):
        assert heavy.counts.tolist() == [640.0]
        assert heavy.flat.counts.tolist() == [640.0]
    assert histogram.counts.tolist() == [256.0]


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_impossible_weights_are_refused(weight: float) -> None:
    with pytest.raises(InputError, match="weight"):
        ColorHistogram.from_image(random_image(0)) * weight


def test_what_is_not_a_histogram_is_not_added() -> None:
    with pytest.raises(TypeError):
        ColorHistogram.from_image(random_image(0)) + 1


def test_facts_are_merged() -> None:
    colors = [[1, 2, 3]]
    one = ColorHistogram(*_codes(colors), provenance={"image": "a"}, icc_profile=b"x")
    other = ColorHistogram(*_codes(colors), provenance={"image": "b"}, icc_profile=b"x")
    third = ColorHistogram(*_codes(colors), provenance={"image": "c"}, icc_profile=b"y")
    total = one + other
    assert total.icc_profile == b"x"
    assert total.provenance == {"merged": [{"image": "a"}, {"image": "b"}]}
    total = total + third
    assert total.icc_profile is None  # of two colour spaces, neither is claimed
    assert total.provenance == {"merged": [{"image": "a"}, {"image": "b"}, {"image": "c"}]}
    assert (one + one).provenance == {"image": "a"}


def _codes(colors: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    histogram = ColorHistogram.from_colors(colors)
    return histogram.codes, histogram.counts


# ---- equality ---------------------------------------------------------------------------------------------------


def test_equality_is_that_of_contents() -> None:
    image = random_image(8)
    histogram = ColorHistogram.from_image(image)
    assert histogram == ColorHistogram.from_image(image.copy())
    assert histogram != ColorHistogram.from_image(random_image(9))
    assert histogram != histogram * 2
    assert histogram != ColorHistogram.from_colors(image.reshape(-1, 3))  # which has no flat regions
    assert histogram != "a histogram"
    with pytest.raises(TypeError):
        hash(histogram)


# ---- coarser ----------------------------------------------------------------------------------------------------


@given(images, st.integers(1, 8))
def test_bins_keep_the_total_and_the_mean(image: np.ndarray, bits: int) -> None:
    fine = ColorHistogram.from_image(image)
    coarse = fine.binned(bits)
    assert coarse.pixels == pytest.approx(fine.pixels, rel=1e-12)
    assert coarse.flat.pixels == pytest.approx(fine.flat.pixels, rel=1e-12)
    means = [(h.colors * h.counts[:, None]).sum(axis=0) / h.pixels for h in (fine, coarse)]
    np.testing.assert_allclose(means[1], means[0], rtol=0, atol=0.5 + 1e-9)
    bins = coarse.colors >> (8 - bits)
    assert len(np.unique(bins, axis=0)) == len(coarse) == len(np.unique(fine.colors >> (8 - bits), axis=0))


def test_eight_bits_change_nothing() -> None:
    histogram = ColorHistogram.from_image(random_image(10))
    assert histogram.binned(8) == histogram


@pytest.mark.parametrize("bits", [0, 9, -1])
def test_impossible_bits_are_refused(bits: int) -> None:
    with pytest.raises(InputError, match="1 to 8"):
        ColorHistogram.from_image(random_image(0)).binned(bits)


@pytest.mark.parametrize("method", [Macenko, Vahadane])
@pytest.mark.parametrize("background", ["match", "none"])
@pytest.mark.parametrize(("bits", "degrees"), [(7, 0.25), (6, 0.45)])
def test_bins_hardly_move_stain_vectors(method, background: str, bits: int, degrees: float, phantom: Phantom) -> None:
    histogram = ColorHistogram.from_image(phantom.image)
    normalizer = method(background=background)
    fine, coarse = (normalizer.estimate(each).stain_matrix for each in (histogram, histogram.binned(bits)))
    turned = np.degrees(np.arccos(np.clip((fine * coarse).sum(axis=1), -1, 1)))
    assert turned.max() < degrees  # as `binned` documents it


# ---- tissue -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("white", [(255.0, 255.0, 255.0), (236.0, 231.0, 228.0)])
@pytest.mark.parametrize("luminosity", [0.5, 0.8, 0.9])
def test_tissue_is_darker_than_its_share_of_the_glass(white: tuple[float, float, float], luminosity: float) -> None:
    histogram = ColorHistogram.from_image(random_image(11, 100, 100))
    balanced = np.clip((histogram.colors + 1.0) / (np.array(white) + 1.0) * 256 - 1, 0, 255)
    share = rgb2lab(balanced / 255.0)[:, 0] / 100
    clear = np.abs(share - luminosity) > 1e-4
    tissue = histogram.tissue(white, luminosity)
    kept = np.isin(histogram.codes, tissue.codes)
    np.testing.assert_array_equal(kept[clear], (share < luminosity)[clear])
    np.testing.assert_array_equal(tissue.counts, histogram.counts[kept])


def test_where_keeps_the_chosen_colours() -> None:
    histogram = ColorHistogram.from_image(random_image(12))
    dark = histogram.where(histogram.colors[:, 0] < 100)
    np.testing.assert_array_equal(dark.colors, histogram.colors[histogram.colors[:, 0] < 100])
    assert dark.flat is histogram.flat
