"""The approximation of SCAN: clusters, and a background that keeps its colour without an edge."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans

import restain
from restain.errors import InputError
from restain.methods.base import Unlearnable
from restain.methods.scan_approx import background_weight, two_means
from restain.methods.stain_vectors import angle_between
from restain.phantom import STAINS_A, STAINS_B, Phantom, Scanner, make_phantom


def test_the_clusters_are_those_of_another_k_means() -> None:
    generator = np.random.default_rng(0)
    points = np.concatenate([generator.normal(centre, 0.1, (300, 3)) for centre in ((0.7, 0.8, 0.4), (0.2, 0.6, 0.3))])
    counts = generator.integers(1, 50, len(points)).astype(float)
    nuclei = two_means(points, counts)
    labels = KMeans(2, n_init=10, random_state=0).fit(points, sample_weight=counts).labels_
    bluer = labels == labels[points[:, 0].argmax()]
    np.testing.assert_array_equal(nuclei, bluer)


def test_counts_are_repetitions() -> None:
    generator = np.random.default_rng(1)
    points, counts = generator.random((50, 3)), generator.integers(1, 6, 50)
    nuclei = two_means(points, counts.astype(float))
    repeated = two_means(np.repeat(points, counts, axis=0), np.ones(counts.sum()))
    np.testing.assert_array_equal(np.repeat(nuclei, counts), repeated)


@pytest.mark.parametrize("points", [np.full((30, 3), 0.5), np.zeros((30, 3))])
def test_one_cluster_is_not_two(points: np.ndarray) -> None:
    with pytest.raises(Unlearnable, match="one cluster"):
        two_means(points, np.ones(30))


@pytest.mark.parametrize("clusters", ["direction", "density"])
@pytest.mark.parametrize("stains", [STAINS_A, STAINS_B], ids=["a", "b"])
def test_planted_stains(stains: np.ndarray, clusters: str) -> None:
    """Class means lie inside the wedge of the stains, as nuclei hold some eosin: near, and in order, but not equal."""
    image = make_phantom(256, 256, seed=3, stain_matrix=stains, scanner=Scanner(noise=1.0)).image
    matrix = restain.ScanApprox(clusters=clusters).estimate(image).stain_matrix
    for found, planted, other in zip(matrix, stains, stains[::-1], strict=True):
        assert angle_between(found, planted) < 7
        assert angle_between(found, planted) < angle_between(found, other)


def test_directions_tell_blue_from_pink_where_densities_do_not() -> None:
    """Two stains of equal darkness: each cluster of directions is one stain."""
    generator = np.random.default_rng(2)
    first = np.arange(600) < 300
    amounts = np.where(first[:, None], (1.0, 0.05), (0.05, 1.0)) * generator.uniform(0.2, 1.5, (600, 1))
    density = amounts @ STAINS_A
    length = np.linalg.norm(density, axis=1)
    np.testing.assert_array_equal(two_means(density / length[:, None], length), first)
    assert (two_means(density, np.ones(600)) != first).mean() > 0.1


shares = st.lists(st.floats(0, 1), min_size=3, max_size=3)


@given(color=shares, other=shares)
def test_the_background_has_no_edge(color: list[float], other: list[float]) -> None:
    """0..1, and never steeper than two channels' difference over the feather."""
    weights = background_weight(np.array([color, other]), 0.86, 0.06, 0.06)
    assert ((weights >= 0) & (weights <= 1)).all()
    step = np.abs(np.subtract(color, other)).max()
    assert abs(weights[0] - weights[1]) <= 2 * step / 0.06 + 1e-9


def test_what_is_background() -> None:
    colors = np.array(
        [[1, 1, 1], [0.9, 0.87, 0.92], [0.86, 0.92, 0.86], [0.8, 0.8, 0.8], [1, 0.88, 1], [0.9, 0.83, 0.83]]
    )
    expected = [1, 1, 1, 0, 0, 0.5]
    np.testing.assert_allclose(background_weight(colors, 0.86, 0.06, 0.06), expected, atol=1e-9)


def test_background_keeps_its_colour_without_any_help(phantom: Phantom, reference: Phantom) -> None:
    """The bare method, to a reference with pinkish glass: the paper leaves lumen and background as they are."""
    result = restain.ScanApprox(background="none").fit(reference.image).transform(phantom.image)
    np.testing.assert_array_equal(result[phantom.glass], phantom.image[phantom.glass])


@pytest.mark.parametrize("arguments", [{"bright": 0}, {"feather": 0}, {"colorless": 2}, {"clusters": "three"}])
def test_impossible_settings(arguments: dict) -> None:
    with pytest.raises(InputError, match=next(iter(arguments))):
        restain.ScanApprox(**arguments)
