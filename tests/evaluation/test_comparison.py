"""Two slides compared: distances in closed form, and the histogram of a normalized slide without mapping a pixel."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

import restain
from restain import ColorHistogram
from restain.errors import InputError
from restain.evaluation.comparison import COLUMNS, compare_slides, mapped, sliced_wasserstein
from restain.phantom import STAINS_A, STAINS_B, Scanner, make_phantom
from restain.slides.writer import PyramidSettings, write_array


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("slides")
    for name, stains, white in (("a", STAINS_A, (243.0,) * 3), ("b", STAINS_B, (236.0, 231.0, 228.0))):
        seed = 3 if name == "a" else 4
        image = make_phantom(384, 384, seed=seed, stain_matrix=stains, scanner=Scanner(white=white, noise=1.0)).image
        write_array(folder / f"{name}.tif", image, settings=PyramidSettings(tile=128, quality=95))
    return folder / "a.tif", folder / "b.tif"


def test_normalized_slides_are_nearer(slides: tuple[Path, Path]) -> None:
    comparison = compare_slides(*slides, ["macenko", "reinhard", "acd"])
    raw = comparison.distances["raw"]
    assert raw.glass == pytest.approx(15, abs=1)
    for method in ("macenko", "reinhard", "acd"):
        found = comparison.distances[method]
        assert found.glass < 1.5
        assert found.tissue < 0.6 * raw.tissue
        assert found.mean_color < 0.6 * raw.mean_color
    assert list(comparison.thumbnails) == ["raw", "macenko", "reinhard", "acd", "target"]
    assert comparison.fallback == {}
    plain = comparison.as_dict()
    assert plain["raw"]["tissue"]["of_raw"] == 1
    assert set(plain["macenko"]) == set(COLUMNS)


def test_a_slide_is_no_distance_from_itself(slides: tuple[Path, Path]) -> None:
    comparison = compare_slides(slides[0], slides[0], ["macenko"])
    for name in COLUMNS:
        assert getattr(comparison.distances["raw"], name) == pytest.approx(0, abs=1e-5)
        assert getattr(comparison.distances["macenko"], name) == pytest.approx(0, abs=0.5)


def test_a_mapped_histogram_is_that_of_the_mapped_picture() -> None:
    image = make_phantom(96, 96, seed=5, scanner=Scanner(noise=1.0)).image
    normalizer = restain.Reinhard().fit("he")
    appearance = normalizer.estimate(image)
    histogram = mapped(ColorHistogram.from_image(image), normalizer, appearance)
    expected = ColorHistogram.from_image(normalizer.transform(image, appearance))
    np.testing.assert_array_equal(histogram.codes, expected.codes)
    np.testing.assert_array_equal(histogram.counts, expected.counts)


@given(shift=st.lists(st.floats(-30, 30), min_size=3, max_size=3))
def test_a_shift_of_all_colours(shift: list[float]) -> None:
    """In each direction a shift is its projection: the mean over the half sphere is half its length."""
    points = np.random.default_rng(0).normal(0, 20, (500, 3))
    counts = np.ones(500)
    distance = sliced_wasserstein(points, counts, points + shift, counts)
    assert distance == pytest.approx(0.5 * np.linalg.norm(shift), rel=0.05, abs=1e-9)


def test_one_direction_is_that_of_another_library() -> None:
    generator = np.random.default_rng(1)
    along = np.zeros((400, 3)), np.zeros((300, 3))
    along[0][:, 2], along[1][:, 2] = generator.gamma(2, 10, 400), generator.normal(40, 5, 300)
    counts = generator.integers(1, 9, 400).astype(float), np.ones(300)
    expected = wasserstein_distance(along[0][:, 2], along[1][:, 2], *counts)
    # Along one axis the distance in a direction is that of the axis times the direction's share of it, on average ½.
    assert sliced_wasserstein(along[0], counts[0], along[1], counts[1]) == pytest.approx(0.5 * expected, rel=0.03)


def test_glass_alone_cannot_be_compared(slides: tuple[Path, Path], tmp_path: Path) -> None:
    blank = np.full((300, 300, 3), 240, np.uint8)
    write_array(tmp_path / "blank.tif", blank, settings=PyramidSettings(tile=128))
    with pytest.raises(InputError, match=r"blank\.tif shows no tissue"):
        compare_slides(tmp_path / "blank.tif", slides[1])


def test_an_unknown_method(slides: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="no method 'magic'"):
        compare_slides(*slides, ["magic"])
