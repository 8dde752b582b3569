"""A cohort's consensus: the planted stains and glass are found, every slide counts alike, and order does not matter."""

import itertools

import numpy as np
import pytest

from restain.color.glass import find_white_point
from restain.color.histogram import ColorHistogram
from restain.errors import InputError
from restain.methods import METHODS
from restain.methods.macenko import Macenko
from restain.methods.stain_vectors import angle_between
from restain.phantom import STAINS_A, STAINS_B, Scanner, make_phantom
from restain.slides.consensus import WEIGHT, Consensus, Share, consensus_of

WHITES = (
    (243.0, 243.0, 243.0),
    (254.6, 253.9, 252.0),
    (228.0, 232.0, 240.0),
    (236.0, 231.0, 228.0),
    (240.0, 239.0, 238.0),
)


def slide(number: int, *, size: tuple[int, int] = (256, 256), white: tuple[float, float, float] = WHITES[0], **options):
    scanner = Scanner(white=white, noise=1.0)
    return ColorHistogram.from_image(make_phantom(*size, seed=number, scanner=scanner, **options).image)


@pytest.fixture(scope="module")
def scanners() -> list[ColorHistogram]:
    """One lab's slides by five scanners, each with glass of its own."""
    return [slide(number, white=white, stain_matrix=STAINS_A) for number, white in enumerate(WHITES)]


def test_glass_is_the_median_of_the_slides_own(scanners: list[ColorHistogram]) -> None:
    """Not the brightest scanner's, which a plain sum of the histograms would have."""
    white = find_white_point(consensus_of(scanners))
    assert white.origin == "glass"
    own = np.median([find_white_point(one).level for one in scanners], axis=0)
    np.testing.assert_allclose(white.level, own, atol=0.02)
    np.testing.assert_allclose(white.level, np.median(WHITES, axis=0), atol=0.6)
    assert find_white_point(ColorHistogram.merged(scanners, equally=True)).level.min() > 250


def test_the_planted_stains_are_found_whatever_the_scanners(scanners: list[ColorHistogram]) -> None:
    reference = Macenko().fit(consensus_of(scanners)).reference_
    assert reference is not None
    alone = [Macenko().estimate(one) for one in scanners]
    for stain in range(2):
        off = angle_between(reference.stain_matrix[stain], STAINS_A[stain])
        assert off < 1.0 + np.median([angle_between(one.stain_matrix[stain], STAINS_A[stain]) for one in alone])


def test_every_slide_counts_alike() -> None:
    """Neither the larger slide nor the one with less glass: halfway between two labs, whatever their sizes."""
    small, large = slide(1, stain_matrix=STAINS_A), slide(2, size=(768, 768), stain_matrix=STAINS_B)
    for pair in ((small, large), (small * 1000.0, large)):
        reference = Macenko().fit(consensus_of(pair)).reference_
        assert reference is not None
        share = [
            angle_between(reference.stain_matrix[stain], STAINS_A[stain])
            / angle_between(STAINS_B[stain], STAINS_A[stain])
            for stain in range(2)
        ]
        assert min(share) > 0.1
        assert max(share) < 0.9
    equal = consensus_of([small, large])
    assert consensus_of([small * 1000.0, large]) == equal
    # A third of a slide's glass more changes nothing either.
    glass = ColorHistogram.from_image(np.full((300, 300, 3), 243, np.uint8))
    with_glass = consensus_of([small + glass, large])
    tissue = [h.tissue(find_white_point(h).level, 0.9) for h in (equal, with_glass)]
    np.testing.assert_allclose(
        *[(t.colors.astype(float) * t.counts[:, None]).sum(axis=0) / t.pixels for t in tissue], atol=0.3
    )


def test_order_does_not_matter(scanners: list[ColorHistogram]) -> None:
    first = consensus_of(scanners)
    for order in itertools.islice(itertools.permutations(scanners), 1, 120, 17):
        again = consensus_of(list(order))
        assert again == first
        assert again.provenance == first.provenance


def test_the_weights_are_whole_and_add_up(scanners: list[ColorHistogram]) -> None:
    for histogram in scanners:
        share = Share.of(histogram)
        assert share.weights.dtype == np.int64
        assert abs(int(share.weights.sum()) - WEIGHT) < len(share.codes)
        assert len(share.codes) * 12 < 3_000_000  # what travels on a cluster


def test_slides_without_tissue_have_no_part() -> None:
    blank = ColorHistogram.from_image(np.full((64, 64, 3), 250, np.uint8))
    tissue = slide(1)
    consensus = Consensus()
    assert consensus.add(Share.of(tissue))
    assert not consensus.add(Share.of(blank))
    assert consensus.histogram() == consensus_of([tissue])
    assert consensus.histogram().provenance["consensus_of"] == 1
    with pytest.raises(InputError, match="none of the slides shows stained tissue"):
        consensus_of([blank])


def test_without_glass_it_stays_a_guess() -> None:
    """Tissue to the edges: the consensus claims no glass that nobody saw."""
    histogram = slide(3)
    without = ColorHistogram(histogram.codes, histogram.counts)
    assert find_white_point(without).origin == "prior"
    assert find_white_point(consensus_of([without])).origin == "prior"
    both = find_white_point(consensus_of([without, slide(4)]))
    assert both.origin == "glass"
    np.testing.assert_allclose(both.level, 243.0, atol=0.5)


@pytest.mark.parametrize("level", [(255.0, 255.0, 255.0), (254.995, 255.0, 254.99), (254.5, 254.5, 254.5)])
def test_glass_that_saturates(level: tuple[float, float, float]) -> None:
    tissue = slide(5, white=(255.0, 255.0, 255.0))
    share = Share.of(tissue)
    consensus = Consensus()
    consensus.add(Share(share.codes, share.weights, np.array(level), "glass", None))
    np.testing.assert_allclose(find_white_point(consensus.histogram()).level, level, atol=0.02)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if not method.fixed])
def test_every_method_is_fitted_to_it(name: str, scanners: list[ColorHistogram]) -> None:
    """A slide that is the consensus stays as it is, glass included: within rounding, at the median of its colours."""
    consensus = consensus_of(scanners[:1] * 2)
    normalizer = METHODS[name]().fit(consensus)
    colors = scanners[0].colors
    mapped = normalizer.map_colors(colors, normalizer.estimate(scanners[0]))
    moved = np.abs(mapped - colors).max(axis=1)
    order = np.argsort(moved)
    weight = np.cumsum(scanners[0].counts[order])
    assert moved[order][np.searchsorted(weight, weight[-1] / 2)] < 2.5


def test_profiles_of_colour_are_kept_where_they_agree() -> None:
    share = Share.of(slide(1))
    one = Share(share.codes, share.weights, share.white_point, "glass", b"scanner A")
    other = Share(share.codes, share.weights, share.white_point, "glass", b"scanner B")
    for shares, wanted in (((one, one), b"scanner A"), ((one, other), None), ((share, share), None)):
        consensus = Consensus()
        for item in shares:
            consensus.add(item)
        assert consensus.histogram().icc_profile == wanted
