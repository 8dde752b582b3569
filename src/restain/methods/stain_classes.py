"""Which stain a colour mainly shows: Khan's classification of colours, bootstrapped, or learned from a user's labels.

Colours are balanced: RGB in 0..255 with glass at 255 in every channel.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from restain.color.glass import find_white_point
from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8, as_rgb8
from restain.color.spaces import apply_matrix, balance, rgb_to_density
from restain.errors import InputError, MissingExtraError
from restain.methods.base import Floats, Unlearnable
from restain.methods.ruifrok import completed, stain_rows
from restain.methods.statistics import weighted_covariance, weighted_mean, weighted_percentile

UNSURE, BACKGROUND, HEMATOXYLIN, EOSIN = 0, 1, 2, 3
"""Labels of pixels and colours."""

SURE = 0.75
"""Least probability of a class that is believed, in the paper."""

OUTERMOST = 25.0
"""Percent of each side's colours that label the bootstrapped classifier. By the share of hematoxylin instead of its
excess, faint bluish colours, whose share is noise, took the place of nuclei, and nuclei came out pale."""

BINS = 64
"""Levels a channel that a trained classifier is tabulated on."""

TISSUE = 0.9
"""Share of glass's lightness above which a colour takes no part in the descriptor, so that glass does not decide it."""

Classes = NDArray[np.uint8]
Classifier = Mapping[str, NDArray[Any]]
"""A trained classifier as arrays: `labels` (s, 64, 64, 64) uint8 by level of the descriptor and colour bin;
`descriptors` (s,); `palette` (p, 3), `mean` (p,) and `axis` (p,), from which an image's descriptor is computed."""


# ---- bootstrapped ---------------------------------------------------------------------------------------------------


def bootstrap_classes(colors: Floats, counts: Floats) -> Classes:
    """Hematoxylin, eosin or unsure, for tissue colours (n, 3) with counts (n,), without anybody's labels.

    Ruifrok & Johnston's fixed vectors say how much more hematoxylin than eosin a colour shows. That difference is split
    in two where the classes' variance is least (Otsu 1979); the outermost part of each side, and all between, label a
    Gaussian classifier of three classes on R, G, B, which then judges every colour.

    Raises:
        Unlearnable: all colours show the same difference.
    """
    amounts = np.maximum(apply_matrix(rgb_to_density(colors), np.linalg.inv(completed(stain_rows("he")))), 0.0)
    excess = amounts[:, 0] - amounts[:, 1]
    above = excess > least_variance_split(excess, counts)
    if above.all() or not above.any():
        raise Unlearnable("the tissue shows one stain")
    blue = excess >= weighted_percentile(excess[above], counts[above], 100.0 - OUTERMOST)
    pink = excess <= weighted_percentile(excess[~above], counts[~above], OUTERMOST)
    parts = [~blue & ~pink, blue, pink] if not (blue | pink).all() else [blue, pink]
    evidence = np.stack([_log_likelihood(colors, counts, part) for part in parts])
    probability = np.exp(evidence - evidence.max(axis=0))
    probability /= probability.sum(axis=0)
    labels = np.full(len(colors), UNSURE, np.uint8)
    labels[probability[-2] > SURE] = HEMATOXYLIN
    labels[probability[-1] > SURE] = EOSIN
    return labels


def least_variance_split(values: Floats, counts: Floats) -> float:
    """Otsu's threshold of values (n,) with counts (n,): the largest value of the lower class."""
    order = np.argsort(values, kind="stable")
    ordered, weight = values[order], np.cumsum(counts[order])
    moment = np.cumsum(ordered * counts[order])
    lower, upper = weight[:-1], weight[-1] - weight[:-1]
    between = lower * upper * (moment[:-1] / lower - (moment[-1] - moment[:-1]) / upper) ** 2
    between[np.diff(ordered) == 0] = -1.0  # equal values stay together
    return float(ordered[int(between.argmax())]) if len(between) else float(ordered[0])


def _log_likelihood(colors: Floats, counts: Floats, part: NDArray[np.bool_]) -> Floats:
    """Of every colour under a Gaussian fitted to a part of them, with equal priors; up to a constant."""
    mean = weighted_mean(colors[part], counts[part])
    # Sensor noise of two levels at least: few colours must not make a class of no width.
    covariance = weighted_covariance(colors[part], counts[part]) + 4.0 * np.eye(3)
    centred = colors - mean
    distance = (apply_matrix(centred, np.linalg.inv(covariance)) * centred).sum(axis=1)
    result: Floats = -0.5 * (distance + np.linalg.slogdet(covariance)[1])
    return result


# ---- learned from labels --------------------------------------------------------------------------------------------


def train_classifier(
    images: Sequence[Any], labels: Sequence[ArrayLike], *, trees: int = 20, levels: int = 8, seed: int = 0
) -> dict[str, NDArray[Any]]:
    """Train the classifier of Khan's toolbox on labelled images, and compile it to a table, for `Khan(classifier=...)`.

    Each pixel's features are R, G, B and its image's stain colour descriptor: the image's histogram over a palette of
    256 colours (an octree over all images), projected on the first principal component of the images' histograms. A
    random forest learns the classes; its answers, where it is sure, are tabulated, so that nothing of scikit-learn's is
    in the result.

    Args:
        images: (H, W, 3) uint8, of one or several labs.
        labels: (H, W) whole numbers for each image: 0 not labelled, 1 background, 2 hematoxylin, 3 eosin.
        trees: of the forest.
        levels: of the descriptor that are tabulated, between the least and the greatest of the images.
        seed: of the forest.

    Returns:
        A `Classifier`.

    Raises:
        InputError: images and labels do not match, or a class is not labelled at all.
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.ensemble import RandomForestClassifier
    except ImportError as error:
        message = (
            f"training a classifier needs scikit-learn ({error}); install it with: pip install 'restain[evaluation]'"
        )
        raise MissingExtraError(message) from error
    _check_numbers(trees, levels, seed)
    pictures = [as_rgb8(image) for image in images]
    marks = [np.asarray(label) for label in labels]
    _check_labels(pictures, marks)
    histograms = [ColorHistogram.from_image(picture) for picture in pictures]
    whites = [find_white_point(histogram).level for histogram in histograms]
    tissues = [histogram.tissue(white, TISSUE) for histogram, white in zip(histograms, whites, strict=True)]
    balanced = [balance(tissue.colors, white) for tissue, white in zip(tissues, whites, strict=True)]
    seen = [index for index, tissue in enumerate(tissues) if len(tissue)]  # blank images show background alone
    if not seen:
        raise InputError("none of the images shows tissue; wanted some to learn stains from")
    palette = octree_palette(np.concatenate([_pixels_of(balanced[index], tissues[index].counts) for index in seen]))
    shares = np.stack([palette_shares(balanced[index], tissues[index].counts, palette) for index in seen])
    mean = shares.mean(axis=0)
    axis = np.linalg.svd(shares - mean)[2][0]
    axis *= np.sign(axis[np.abs(axis).argmax()])  # the sign of a component is arbitrary
    own = np.zeros(len(pictures))
    own[seen] = (shares - mean) @ axis
    features, classes = [], []
    for picture, mark, white, descriptor in zip(pictures, marks, whites, own, strict=True):
        colors = balance(picture[mark > 0], white)
        features.append(np.column_stack([colors, np.full(len(colors), descriptor)]))
        classes.append(mark[mark > 0])
    forest = RandomForestClassifier(trees, random_state=seed, n_jobs=1)
    forest.fit(np.concatenate(features), np.concatenate(classes))
    descriptors = np.unique(np.linspace(own.min(), own.max(), levels))
    centres = (np.indices((BINS,) * 3).reshape(3, -1).T + 0.5) * (256.0 / BINS) - 0.5
    table = np.stack([_sure(forest, np.column_stack([centres, np.full(len(centres), d)])) for d in descriptors])
    return {
        "labels": table.reshape(-1, BINS, BINS, BINS),
        "descriptors": descriptors,
        "palette": palette,
        "mean": mean,
        "axis": axis,
    }


def classify(classifier: Classifier, colors: Floats, counts: Floats) -> Classes:
    """Labels (n,) of tissue colours (n, 3) with counts (n,), at the nearest tabulated descriptor."""
    shares = palette_shares(colors, counts, classifier["palette"])
    descriptor = (shares - classifier["mean"]) @ classifier["axis"]
    level = int(np.abs(classifier["descriptors"] - descriptor).argmin())
    bins = np.minimum(np.rint(colors).astype(np.intp) * BINS // 256, BINS - 1)
    labels: Classes = classifier["labels"][level][tuple(bins.T)]
    return labels


def octree_palette(colors: Floats, size: int = 256) -> Floats:
    """A palette (p, 3), p ≤ size, of colours (n, 3), by Pillow's octree."""
    from PIL import Image

    picture = Image.fromarray(np.rint(colors).astype(np.uint8)[None])
    quantized = picture.quantize(size, method=Image.Quantize.FASTOCTREE)
    used = len(quantized.getcolors(size) or [])
    palette = np.array(quantized.getpalette(), np.float64).reshape(-1, 3)[:used]
    return np.unique(palette, axis=0)


def _pixels_of(colors: Floats, counts: Floats, most: int = 200_000) -> Floats:
    """Colours (n, 3) repeated by their counts, as in the image, to about `most` rows, each at least once."""
    repeats = np.maximum(np.rint(counts * min(1.0, most / counts.sum())), 1).astype(np.intp)
    pixels: Floats = np.repeat(colors, repeats, axis=0)
    return pixels


def palette_shares(colors: Floats, counts: Floats, palette: Floats) -> Floats:
    """The share of each palette colour (p,): every colour counts for the nearest one."""
    from scipy.spatial import KDTree

    nearest = KDTree(palette).query(colors)[1]
    shares: Floats = np.bincount(nearest, counts, minlength=len(palette)) / counts.sum()
    return shares


def checked_classifier(classifier: Any) -> dict[str, NDArray[Any]]:
    """A classifier with arrays of the right types.

    Raises:
        InputError: it is not what `train_classifier` returns.
    """
    wanted = {"labels", "descriptors", "palette", "mean", "axis"}
    if not isinstance(classifier, Mapping) or set(classifier) != wanted:
        raise InputError("got a classifier of another form; wanted what train_classifier returns")
    labels = np.asarray(classifier["labels"])
    if labels.ndim != 4 or labels.shape[1:] != (BINS,) * 3 or not len(labels) or not np.isin(labels, range(4)).all():
        raise InputError(f"got a classifier with labels of shape {labels.shape}; wanted (s, {BINS}, {BINS}, {BINS})")
    # Copies, so that a later change of the caller's arrays changes nothing here.
    arrays = {name: np.array(classifier[name], np.float64) for name in sorted(wanted - {"labels"})}
    colors = len(arrays["palette"])
    shapes = {"descriptors": (len(labels),), "palette": (colors, 3), "mean": (colors,), "axis": (colors,)}
    for name, shape in shapes.items():
        if arrays[name].shape != shape or not colors or not np.isfinite(arrays[name]).all():
            raise InputError(f"got a classifier with {name} of shape {arrays[name].shape}; wanted {shape}, finite")
    return {"labels": labels.astype(np.uint8), **arrays}


def _check_numbers(trees: int, levels: int, seed: int) -> None:
    limits = (("trees", trees, 1, 1000), ("levels", levels, 1, 64), ("seed", seed, 0, 2**32 - 1))
    for name, value, least, most in limits:
        if not isinstance(value, (int, np.integer)) or not least <= value <= most:
            raise InputError(f"got {name}={value!r}; wanted a whole number in {least}..{most:,}")


def _check_labels(pictures: Sequence[RGB8], marks: Sequence[NDArray[Any]]) -> None:
    if not pictures or len(pictures) != len(marks):
        raise InputError(f"got {len(pictures)} images and {len(marks)} labels; wanted as many of each, one or more")
    for picture, mark in zip(pictures, marks, strict=True):
        if mark.shape != picture.shape[:2] or mark.dtype.kind not in "iub":
            raise InputError(f"got labels {mark.dtype} {mark.shape} for an image of {picture.shape[:2]}")
    found = np.unique(np.concatenate([np.unique(mark) for mark in marks]))
    if not np.isin(found, range(4)).all() or not np.isin([BACKGROUND, HEMATOXYLIN, EOSIN], found).all():
        raise InputError(f"got labels {found.tolist()}; wanted 0 (none), and 1 background, 2 hematoxylin, 3 eosin each")


def _sure(forest: Any, features: Floats) -> Classes:
    probabilities = forest.predict_proba(features)
    best = probabilities.argmax(axis=1)
    sure = probabilities[np.arange(len(best)), best] > SURE
    return np.where(sure, forest.classes_[best], UNSURE).astype(np.uint8)
