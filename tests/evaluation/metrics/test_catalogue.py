"""Questions that every metric must answer, asked of all in `METRICS`."""

import inspect
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restain.errors import InputError
from restain.evaluation.metrics import METRICS, SUITES, Metric

NEEDS_WEIGHTS = {"lpips", "squeeze_feature_distance", "fid"}
PAIRS = {name: metric for name, metric in METRICS.items() if metric.takes == "pair" and name not in NEEDS_WEIGHTS}
QUICK = {name: metric for name, metric in PAIRS.items() if "feature" not in name and name != "stain_angle"}
BEST = {name: 1.0 if metric.higher_is_better else 0.0 for name, metric in PAIRS.items()} | {
    "psnr": math.inf,
    "seam_score": 1.0,
}
OPTIONS = {"seam_score": {"tile": 64}}
SYMMETRIC = set(QUICK) - {"ergas", "rase", "ergas_sewar", "rase_sewar", "seam_score", "background_shift"}

Pair = tuple[np.ndarray, np.ndarray]
every_pair = pytest.mark.parametrize("name", PAIRS)


def value(name: str, *images: np.ndarray, **options) -> float:
    if "feature" in name:  # networks are slow
        if all(np.shape(image) == np.shape(images[0]) and np.ndim(image) == 3 for image in images):
            images = tuple(image[:96, :80] for image in images)
        options = {key: mask[:96, :80] for key, mask in options.items()}
    return METRICS[name].function(*images, **(OPTIONS.get(name, {}) | options))


# ---- what a metric says of itself -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_says_what_it_is(name: str) -> None:
    metric = METRICS[name]
    assert metric.function.__name__ == name
    assert metric.summary.endswith(".")
    assert metric.wants
    assert metric.values
    document = inspect.getdoc(metric.function) or ""
    better = {True: ("higher is better", "more frames a second are better"), False: ("lower is",)}
    if metric.higher_is_better is None:
        assert "Neither high nor low is good" in document
    else:
        assert any(words in document.lower() for words in better[metric.higher_is_better])
    assert ("mask" in inspect.signature(metric.function).parameters) == (metric.takes_mask or metric.takes == "masks")


def test_legacy_metrics_go_by_legacy_names() -> None:
    legacy = {name for name, metric in METRICS.items() if metric.legacy}
    assert legacy == {
        "ssim_volume",
        "ms_ssim_stst",
        "ergas_sewar",
        "rase_sewar",
        "uqi_sewar",
        "stst_image_distance",
    }


def test_the_metrics_of_the_field_are_there() -> None:
    assert set(METRICS) >= {
        *("ssim", "ssim_stretched", "ms_ssim", "fsim", "fsimc", "qssim", "pcc", "scc", "mse", "rmse", "psnr", "ergas"),
        *("rase", "uqi", "nmi", "nmi_cv", "bhattacharyya", "hellinger", "stain_angle", "lpips", "fid", "seam_score"),
        *("gradient_correlation", "background_shift", "profile_difference", "fps", "auc", "f1", "dice", "iou"),
    }
    assert set(SUITES) == {"stainnet", "dstgan", "stst", "toolkit"}


# ---- equal images, and worse ones -------------------------------------------------------------------------------


@every_pair
def test_equal_images_score_best(name: str, pair: Pair) -> None:
    assert value(name, pair[0], pair[0].copy()) == pytest.approx(BEST[name], abs=1e-7)


@every_pair
def test_a_changed_image_scores_worse(name: str, pair: Pair) -> None:
    better, worse = BEST[name], value(name, *pair)
    assert worse < better - 1e-3 if METRICS[name].higher_is_better else worse > better + 1e-3


@every_pair
def test_images_are_not_changed(name: str, pair: Pair) -> None:
    before = [image.copy() for image in pair]
    frozen = [image.copy() for image in pair]
    for image in frozen:
        image.flags.writeable = False
    value(name, *frozen)
    for image, same in zip(frozen, before, strict=True):
        np.testing.assert_array_equal(image, same)


@pytest.mark.parametrize("name", sorted(SYMMETRIC))
def test_symmetric(name: str, pair: Pair) -> None:
    assert value(name, *pair) == pytest.approx(value(name, *reversed(pair)), rel=1e-9)


@every_pair
def test_mirrored_images_score_the_same(name: str, pair: Pair) -> None:
    # Windows of even side are not centred: sewar's count other ones, and tiles end elsewhere.
    # A network's strides do not end at the other border either.
    tolerance = 0.05 if "sewar" in name or "feature" in name else 1e-6
    images = [image[:192, :192] for image in pair]
    if name == "profile_difference":
        images = [image[:191, :191] for image in images]
    mirrored = [image[::-1, ::-1] for image in images]
    assert value(name, *mirrored) == pytest.approx(value(name, *images), rel=tolerance, abs=tolerance)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), amount=st.floats(0, 1))
@pytest.mark.parametrize("name", ["ssim", "qssim", "uqi", "scc", "pcc", "hellinger", "gradient_correlation", "fsim"])
def test_bounds(name: str, seed: int, amount: float) -> None:
    generator = np.random.default_rng(seed)
    first, second = (generator.integers(0, 256, (24, 20, 3), dtype=np.uint8) for _ in range(2))
    mixed = np.rint(first * amount + second * (1 - amount)).astype(np.uint8)
    assert -1 - 1e-9 <= value(name, first, mixed) <= 1 + 1e-9


# ---- masks ------------------------------------------------------------------------------------------------------

MASKED = [name for name, metric in PAIRS.items() if metric.takes_mask and name not in ("stain_angle",)]


@pytest.mark.parametrize("name", MASKED)
def test_what_lies_outside_the_mask_does_not_count(name: str, pair: Pair) -> None:
    if name == "random_feature_distance":
        pytest.skip("its places look beyond the mask")
    if name == "ssim_stretched":
        pytest.skip("it stretches by the whole image")
    reference, image = pair
    mask = np.ones(image.shape[:2], bool)
    mask[:, -17:] = False
    spoiled = image.copy()
    spoiled[~mask] = 255 - spoiled[~mask]
    assert value(name, reference, spoiled, mask=mask) == pytest.approx(value(name, reference, image, mask=mask))
    assert value(name, reference, spoiled) != pytest.approx(value(name, reference, image), abs=1e-9)


@pytest.mark.parametrize("name", MASKED)
def test_a_full_mask_changes_nothing(name: str, pair: Pair) -> None:
    full = np.ones(pair[0].shape[:2], bool)
    assert value(name, *pair, mask=full) == pytest.approx(value(name, *pair), rel=1e-9)


def test_a_masked_rectangle_is_a_crop(pair: Pair) -> None:
    mask = np.zeros(pair[0].shape[:2], bool)
    mask[10:150, 20:190] = True
    crops = [image[10:150, 20:190] for image in pair]
    for name in set(MASKED) - {"ms_ssim", "random_feature_distance", "ssim_stretched", "background_shift"}:
        assert value(name, *pair, mask=mask) == pytest.approx(value(name, *crops), rel=1e-9), name


# ---- wrong input ------------------------------------------------------------------------------------------------

GOOD = np.random.default_rng(0).integers(0, 256, (192, 192, 3), dtype=np.uint8)
WRONG = {
    "another size": (GOOD, GOOD[:, :-1]),
    "floats": (GOOD / 255.0, GOOD / 255.0),
    "16 bits": (GOOD.astype(np.uint16), GOOD.astype(np.uint16)),
    "a batch": (GOOD[None], GOOD[None]),
    "channels first": (GOOD.transpose(2, 0, 1), GOOD.transpose(2, 0, 1)),
    "alpha": (np.dstack([GOOD, GOOD[..., 0]]), np.dstack([GOOD, GOOD[..., 0]])),
    "nothing": (GOOD[:0], GOOD[:0]),
    "one gray": (GOOD, GOOD[..., 0]),
    "no array": (GOOD, "image.png"),
}
ANY_SIZE = {"bhattacharyya", "hellinger", "stain_angle"}


@every_pair
@pytest.mark.parametrize("what", WRONG)
def test_wrong_images_are_refused(name: str, what: str) -> None:
    if what == "another size" and name in ANY_SIZE:
        assert np.isfinite(value(name, *WRONG[what])) or name == "stain_angle"
        return
    with pytest.raises(InputError, match="wanted"):
        value(name, *WRONG[what])


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize("mask", [np.ones((5, 5), bool), np.ones((192, 192)), np.zeros((192, 192), bool)])
def test_wrong_masks_are_refused(name: str, mask: np.ndarray) -> None:
    with pytest.raises(InputError, match="mask"):
        value(name, GOOD, GOOD, mask=mask)


@pytest.mark.parametrize(
    ("name", "least"),
    [("ssim", 11), ("ssim_stretched", 11), ("qssim", 11), ("uqi", 8), ("scc", 10), ("ms_ssim", 176), ("fsim", 16)],
)
def test_the_least_size(name: str, least: int) -> None:
    small = np.random.default_rng(1).integers(0, 256, (least, least + 3, 3), dtype=np.uint8)
    assert value(name, small, small) == pytest.approx(1)
    with pytest.raises(InputError, match=f"{least} pixels or more"):
        value(name, small[1:], small[1:])


def test_a_mask_without_a_whole_window_is_refused() -> None:
    mask = np.zeros((192, 192), bool)
    mask[::2] = True
    with pytest.raises(InputError, match="no square of 11"):
        METRICS["ssim"].function(GOOD, GOOD, mask)


GRAY = [n for n in QUICK if n not in ("fsimc", "qssim", "ssim_volume", "stst_image_distance", "background_shift")]


@pytest.mark.parametrize("name", GRAY)
def test_gray_images(name: str, pair: Pair) -> None:
    gray = [image[..., 1] for image in pair]
    assert np.isfinite(value(name, *gray))
    assert value(name, gray[0], gray[0]) == pytest.approx(BEST[name], abs=1e-7)


@pytest.mark.parametrize("name", sorted(set(QUICK) - set(GRAY)))
def test_gray_images_are_refused_where_colour_is_needed(name: str, pair: Pair) -> None:
    with pytest.raises(InputError, match="colour"):
        value(name, pair[0][..., 0], pair[1][..., 0])


def test_records_are_frozen() -> None:
    with pytest.raises(AttributeError):
        METRICS["ssim"].legacy = True  # type: ignore[misc]
    assert all(isinstance(metric, Metric) for metric in METRICS.values())
