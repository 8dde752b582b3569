"""Statistics of values with counts equal those of the values repeated."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restain.methods.statistics import weighted_covariance, weighted_mean, weighted_percentile

numbers = st.floats(-1e6, 1e6)
rows = st.lists(st.tuples(numbers, numbers, numbers, st.integers(1, 6)), min_size=1, max_size=25)


@given(
    st.lists(st.tuples(numbers, st.integers(1, 6)), min_size=1, max_size=25),
    st.lists(st.floats(0, 100), min_size=1, max_size=5),
)
def test_percentiles_of_whole_counts_are_those_of_numpy(drawn: list, percentiles: list[float]) -> None:
    values, counts = np.array(drawn).T
    expected = np.percentile(np.repeat(values, counts.astype(int)), percentiles)
    np.testing.assert_allclose(weighted_percentile(values, counts, percentiles), expected, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("percentile", [0, 1, 25, 50, 99, 99.9, 100])
def test_percentiles_of_many_pixels(percentile: float) -> None:
    generator = np.random.default_rng(0)
    values, counts = generator.normal(size=5000), generator.integers(1, 300, 5000)
    expected = np.percentile(np.repeat(values, counts), percentile)
    assert weighted_percentile(values, counts.astype(float), percentile) == pytest.approx(expected, abs=1e-12)


@given(
    st.lists(st.tuples(numbers, st.integers(1, 9)), min_size=1, max_size=25),
    st.lists(st.integers(0, 100), min_size=1, max_size=5),
)
def test_percentiles_of_fractional_counts_reach_the_weight(drawn: list, percentiles: list[int]) -> None:
    values, quarters = np.array(drawn).T
    quarters[0] = 4 * quarters[0] + 1  # so that at least one count, in quarters, is not whole
    found = weighted_percentile(values, quarters / 4, percentiles)
    for percentile, value in zip(percentiles, found, strict=True):
        # Exact in integers: the weight up to the value reaches the share, that below it does not.
        assert value in values
        assert 100 * quarters[values <= value].sum() >= percentile * quarters.sum()
        assert 100 * quarters[values < value].sum() <= percentile * quarters.sum()


def test_percentiles_do_not_depend_on_the_order() -> None:
    generator = np.random.default_rng(1)
    values, counts = generator.normal(size=300), generator.integers(1, 9, 300).astype(float)
    order = generator.permutation(300)
    for percentile in (0, 1, 33.3, 50, 99, 100):
        assert weighted_percentile(values, counts, percentile) == weighted_percentile(
            values[order], counts[order], percentile
        )


@given(rows)
def test_mean_and_covariance_are_those_of_numpy(drawn: list) -> None:
    table = np.array(drawn)
    values, counts = table[:, :3], table[:, 3]
    repeated = np.repeat(values, counts.astype(int), axis=0)
    np.testing.assert_allclose(weighted_mean(values, counts), repeated.mean(axis=0), rtol=1e-9, atol=1e-6)
    expected = np.cov(repeated.T, bias=True)
    np.testing.assert_allclose(weighted_covariance(values, counts), expected, rtol=1e-6, atol=1e-3)
