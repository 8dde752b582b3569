"""Khan's method: the classes, bootstrapped and from labels, and the curve through their percentiles."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.interpolate import make_smoothing_spline

import restain
from restain import ColorHistogram, load
from restain.color.glass import find_white_point
from restain.color.spaces import balance
from restain.errors import FormatError, InputError
from restain.methods import stain_classes
from restain.methods.base import Unlearnable
from restain.methods.khan import curve_points, map_intensity
from restain.methods.stain_classes import (
    BACKGROUND,
    BINS,
    EOSIN,
    HEMATOXYLIN,
    UNSURE,
    bootstrap_classes,
    classify,
    least_variance_split,
    octree_palette,
    palette_shares,
    train_classifier,
)
from restain.methods.stain_vectors import angle_between
from restain.phantom import STAINS_A, STAINS_B, Phantom, Scanner, make_phantom


def labels_of(phantom: Phantom) -> np.ndarray:
    """A careful user's labels: glass, and pixels with nearly only the one stain; all else is left out."""
    labels = np.full(phantom.image.shape[:2], UNSURE, np.uint8)
    amounts = phantom.concentrations
    labels[phantom.glass] = BACKGROUND
    labels[(amounts[..., 0] > 0.4) & (amounts[..., 0] > 3 * amounts[..., 1])] = HEMATOXYLIN
    labels[(amounts[..., 1] > 0.2) & (amounts[..., 1] > 3 * amounts[..., 0])] = EOSIN
    labels[phantom.blood] = UNSURE
    return labels


@pytest.fixture(scope="module")
def labelled() -> list[Phantom]:
    return [
        make_phantom(128, 160, seed=seed, stain_matrix=stains, scanner=Scanner(white=white, noise=1.0))
        for seed, stains, white in ((21, STAINS_A, (243.0,) * 3), (22, STAINS_B, (236.0, 231.0, 228.0)))
    ]


@pytest.fixture(scope="module")
def classifier(labelled: list[Phantom]) -> dict[str, np.ndarray]:
    return train_classifier([each.image for each in labelled], [labels_of(each) for each in labelled])


# ---- bootstrapped -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stains", [STAINS_A, STAINS_B], ids=["a", "b"])
def test_bootstrapped_classes_are_mostly_right(stains: np.ndarray) -> None:
    phantom = make_phantom(192, 192, seed=12, stain_matrix=stains, scanner=Scanner(noise=1.0))
    colors = balance(phantom.image[~phantom.glass & ~phantom.blood], phantom.scanner.white)
    amounts = phantom.concentrations[~phantom.glass & ~phantom.blood]
    labels = bootstrap_classes(colors, np.ones(len(colors)))
    blue, pink = labels == HEMATOXYLIN, labels == EOSIN
    assert blue.mean() > 0.03
    assert pink.mean() > 0.03
    excess = amounts[:, 0] - amounts[:, 1]
    assert np.median(excess[blue]) > np.quantile(excess, 0.8)
    assert np.median(excess[pink]) < np.quantile(excess, 0.4)


@pytest.mark.parametrize("stains", [STAINS_A, STAINS_B], ids=["a", "b"])
def test_planted_stains(stains: np.ndarray) -> None:
    """Means of classes lie inside the wedge: near, and in order, but not equal."""
    image = make_phantom(256, 256, seed=3, stain_matrix=stains, scanner=Scanner(noise=1.0)).image
    matrix = restain.Khan().estimate(image).stain_matrix
    for found, planted, other in zip(matrix, stains, stains[::-1], strict=True):
        assert angle_between(found, planted) < 8
        assert angle_between(found, planted) < angle_between(found, other)


def test_one_stain_is_not_two() -> None:
    with pytest.raises(Unlearnable, match="one stain"):
        bootstrap_classes(np.full((30, 3), 120.0), np.ones(30))


def test_the_split_is_otsus() -> None:
    from skimage.filters import threshold_otsu

    generator = np.random.default_rng(0)
    values = np.concatenate([generator.normal(60, 8, 500), generator.normal(160, 20, 300)]).round()
    unique, counts = np.unique(values, return_counts=True)
    ours = least_variance_split(unique, counts.astype(float))
    theirs = threshold_otsu(values.astype(int))
    assert (values > ours).sum() == (values > theirs).sum()


# ---- learned from labels ----------------------------------------------------------------------------------------


def test_a_trained_classifier_knows_new_tissue(classifier: dict[str, np.ndarray]) -> None:
    phantom = make_phantom(160, 160, seed=31, stain_matrix=STAINS_A, scanner=Scanner(noise=1.0))
    truth = labels_of(phantom)
    histogram = ColorHistogram.from_image(phantom.image)
    tissue = histogram.tissue(phantom.scanner.white, 0.9)
    labels = classify(classifier, balance(tissue.colors, phantom.scanner.white), tissue.counts)
    by_code = dict(zip(tissue.codes.tolist(), labels.tolist(), strict=True))
    codes = phantom.image.astype(int) @ (65536, 256, 1)
    told = np.array([by_code.get(code, BACKGROUND) for code in codes.ravel().tolist()]).reshape(codes.shape)
    for label in (HEMATOXYLIN, EOSIN):
        sure = (truth == label) & (told != UNSURE)
        assert sure.sum() > 50
        assert (told[sure] == label).mean() > 0.9


def test_stains_from_labels(classifier: dict[str, np.ndarray]) -> None:
    image = make_phantom(256, 256, seed=3, stain_matrix=STAINS_A, scanner=Scanner(noise=1.0)).image
    learned = restain.Khan(classifier=classifier).estimate(image).stain_matrix
    assert max(angle_between(learned[row], STAINS_A[row]) for row in range(2)) < 7
    assert (learned != restain.Khan().estimate(image).stain_matrix).any()


def test_a_saved_classifier_is_arrays_alone(classifier: dict, phantom: Phantom, reference: Phantom, tmp_path) -> None:
    normalizer = restain.Khan(classifier=classifier).fit(reference.image)
    normalizer.save(tmp_path / "khan.safetensors")
    loaded = load(tmp_path / "khan.safetensors")
    assert loaded == normalizer
    assert {array.dtype.kind for array in loaded.classifier.values()} == {"u", "f"}
    np.testing.assert_array_equal(loaded.transform(phantom.image), normalizer.transform(phantom.image))
    assert loaded != restain.Khan().fit(reference.image)
    assert len(normalizer.settings(brief=True)["classifier"]["sha256"]) == 64


def test_training_is_deterministic(labelled: list[Phantom], classifier: dict[str, np.ndarray]) -> None:
    again = train_classifier([each.image for each in labelled], [labels_of(each) for each in labelled])
    for name, array in classifier.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)
    assert classifier["labels"].shape[1:] == (BINS,) * 3
    assert set(np.unique(classifier["labels"])) <= {UNSURE, BACKGROUND, HEMATOXYLIN, EOSIN}


def test_one_labelled_image_is_enough(labelled: list[Phantom]) -> None:
    one = train_classifier([labelled[0].image], [labels_of(labelled[0])], trees=5)
    assert one["labels"].shape[0] == 1
    restain.Khan(classifier=one).fit(labelled[0].image)


def test_a_blank_image_may_show_the_background(labelled: list[Phantom]) -> None:
    blank = np.full((40, 50, 3), 243, np.uint8)
    images = [labelled[0].image, blank]
    classifier = train_classifier(images, [labels_of(labelled[0]), np.ones((40, 50), int)], trees=5)
    assert all(np.isfinite(array).all() for array in classifier.values())
    restain.Khan(classifier=classifier).fit(labelled[0].image)
    with pytest.raises(InputError, match="none of the images shows tissue"):
        train_classifier([blank], [np.tile([1, 2, 3, 3, 2], (40, 10))])


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        *(("trees", value, r"1\.\.1,000") for value in (0, -1, 1001, 2.0, float("inf"), "many", None)),
        *(("levels", value, r"1\.\.64") for value in (0, 65, 2.0, None)),
        *(("seed", value, r"0\.\.4,294,967,295") for value in (-1, 2**32, 0.0, "dice", None)),
    ],
)
def test_numbers_that_cannot_be(labelled: list[Phantom], name: str, value, wanted: str) -> None:
    with pytest.raises(InputError, match=f"got {name}={value!r}; wanted a whole number in {wanted}"):
        train_classifier([labelled[0].image], [labels_of(labelled[0])], **{name: value})


def test_the_palette_is_that_of_pixels(labelled: list[Phantom], monkeypatch: pytest.MonkeyPatch) -> None:
    """A colour counts as often as it occurs: the octree sees the tissue's pixels, not its colours once each."""
    seen = []
    monkeypatch.setattr(stain_classes, "octree_palette", lambda colors: seen.append(colors) or octree_palette(colors))
    image = labelled[0].image
    train_classifier([image], [labels_of(labelled[0])], trees=1)
    histogram = ColorHistogram.from_image(image)
    white = find_white_point(histogram).level
    tissue = histogram.tissue(white, 0.9)
    assert len(tissue) < len(seen[0]) == tissue.pixels
    np.testing.assert_allclose(
        seen[0].mean(axis=0), np.average(balance(tissue.colors, white), axis=0, weights=tissue.counts)
    )


def test_counts_are_scaled_to_a_bounded_number_of_pixels() -> None:
    colors = np.arange(9.0).reshape(3, 3)
    pixels = stain_classes._pixels_of(colors, np.array([6e9, 3e9, 1.0]), most=900)
    assert pixels[:, 0].tolist() == [0.0] * 600 + [3.0] * 300 + [6.0]


def test_the_callers_arrays_may_change_afterwards(classifier: dict[str, np.ndarray]) -> None:
    given = {name: array.copy() for name, array in classifier.items()}
    normalizer = restain.Khan(classifier=given)
    for array in given.values():
        array[:] = 0
    assert normalizer == restain.Khan(classifier=classifier)


def test_labels_that_do_not_fit(labelled: list[Phantom]) -> None:
    image, labels = labelled[0].image, labels_of(labelled[0])
    for images, marks, message in (
        ([], [], "0 images"),
        ([image], [labels, labels], "1 images and 2 labels"),
        ([image], [labels[:5]], "for an image of"),
        ([image], [labels.astype(float)], "float64"),
        ([image], [np.where(labels == EOSIN, 0, labels)], "3 eosin each"),
        ([image], [labels + 3], "wanted 0"),
    ):
        with pytest.raises(InputError, match=message):
            train_classifier(images, marks)


def test_impossible_classifiers(classifier: dict[str, np.ndarray]) -> None:
    for change, message in (
        ({"labels": np.zeros((2, 8, 8, 8), np.uint8)}, "labels of shape"),
        ({"labels": np.full_like(classifier["labels"], 7)}, "labels"),
        ({"axis": classifier["axis"][:-1]}, "axis of shape"),
        ({"mean": np.full_like(classifier["mean"], np.nan)}, "mean"),
        ({"more": np.zeros(3)}, "train_classifier"),
    ):
        with pytest.raises(InputError, match=message):
            restain.Khan(classifier=classifier | change)
    with pytest.raises(InputError, match="train_classifier"):
        restain.Khan(classifier="forest")


def test_palettes() -> None:
    colors = np.random.default_rng(0).integers(0, 256, (5000, 3)).astype(float)
    palette = octree_palette(colors)
    assert 64 < len(palette) <= 256
    shares = palette_shares(colors, np.ones(5000), palette)
    assert shares.sum() == pytest.approx(1)
    # An independent look-up of the nearest palette colour.
    nearest = ((colors[:, None] - palette) ** 2).sum(axis=2).argmin(axis=1)
    np.testing.assert_allclose(shares, np.bincount(nearest, minlength=len(palette)) / 5000, atol=0.002)
    few = np.repeat([[0.0, 0, 0], [250, 250, 250]], 10, axis=0)
    assert len(octree_palette(few)) <= 2


# ---- saved ------------------------------------------------------------------------------------------------------


IMPOSSIBLE = {
    "no stain": ("stain_matrix", np.array([[0.0, 0, 0], [0.1, 0.9, 0.3]]), "told apart"),
    "one stain": ("stain_matrix", np.array([[0.1, 0.9, 0.3], [0.1, 0.9, 0.3]]), "told apart"),
    "negative": ("percentiles", np.full((2, 2, 3), [-1.0, 100, 200]), "outside 0..1000"),
    "brighter than any": ("percentiles", np.full((2, 2, 3), [50.0, 100, 1001]), "outside 0..1000"),
    "falling": ("percentiles", np.array([[[30.0, 20, 40], [150, 160, 170]]] * 2), "do not rise"),
    "all alike": ("percentiles", np.full((2, 2, 3), 100.0), "do not differ"),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_saved_numbers_that_cannot_be(what: str, reference: Phantom, tmp_path) -> None:
    name, numbers, message = IMPOSSIBLE[what]
    normalizer = restain.Khan().fit(reference.image)
    normalizer.reference_ = replace(normalizer.reference_, **{name: numbers})
    normalizer.save(tmp_path / "khan.safetensors")
    with pytest.raises(FormatError, match=rf"khan\.safetensors is a damaged normalizer .*{message}"):
        load(tmp_path / "khan.safetensors")


# ---- the curve --------------------------------------------------------------------------------------------------


def test_equal_percentiles_leave_intensities_nearly_as_they_are() -> None:
    percentiles = np.array([[30.0, 60.0, 120.0], [200.0, 230.0, 250.0]])
    intensity = np.linspace(0, 1000, 101)
    np.testing.assert_allclose(map_intensity(intensity, percentiles, percentiles), intensity, atol=1e-6)


def test_points_at_one_place_weigh_together() -> None:
    """Against the library's spline on points that were moved apart a little."""
    source = np.array([[30.0, 30.0, 120.0], [200.0, 230.0, 255.0]])
    reference = np.array([[20.0, 50.0, 90.0], [190.0, 240.0, 250.0]])
    x, y = curve_points(source), curve_points(reference)
    apart = x.copy()
    apart[x == 30] += (-0.1, 0.1)
    apart[x == 255] += (-0.3, -0.1, 0.1, 0.3)
    spline = make_smoothing_spline(apart, y, lam=(1 - 9e-6) / 9e-6)
    intensity = np.linspace(0, 300, 31)
    np.testing.assert_allclose(map_intensity(intensity, source, reference), spline(intensity), atol=0.3)


def test_dropping_the_rest_darkens_nuclei(phantom: Phantom, reference: Phantom) -> None:
    """Where eosin comes out negative, keeping that makes a pixel brighter in green, which eosin absorbs most."""
    kept, dropped = (
        restain.Khan(residual=residual).fit(reference.image).transform(phantom.image) for residual in ("keep", "drop")
    )
    darker = kept[phantom.nuclei].mean(axis=0) - dropped[phantom.nuclei].mean(axis=0)
    assert darker[1] > 1
