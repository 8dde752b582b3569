"""Examples: pictures and squares of them, as they are and normalized, with labels or masks."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restain.errors import InputError
from restain.evaluation.datasets.item import Item
from restain.evaluation.datasets.patches import Patch

pytest.importorskip("torch")

import restain
from restain.evaluation.tasks.examples import class_names, make_examples, read_examples


@pytest.fixture
def items(tmp_path: Path, phantom) -> list[Item]:
    """Two halves of a phantom as pictures of 96 × 128 of one slide, with masks of instances, and labels."""
    made = []
    for number, (pixels, nuclei) in enumerate(
        zip(np.split(phantom.image, 2), np.split(phantom.nuclei, 2), strict=True)
    ):
        image, mask = tmp_path / f"{number}.png", tmp_path / f"{number}_mask.png"
        Image.fromarray(pixels[:, :128]).save(image)
        Image.fromarray(7 * nuclei[:, :128].astype(np.uint8)).save(mask)
        made.append(Item(image, "phantom", "slide", patient="p", label=("upper", "lower")[number], mask=mask))
    return made


def pixels_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_labels(items: list[Item]) -> None:
    classes = class_names(items)
    assert classes == ("lower", "upper")
    examples = read_examples(items, 32, classes)
    assert examples.images.shape == (2, 32, 32, 3)
    assert examples.truth.tolist() == [1, 0]
    assert examples.groups == ("phantom: patient p",) * 2
    assert examples.names == ("0", "1")
    # 96 × 128 to 32 × 32: each pixel is the mean of 3 × 4.
    means = pixels_of(items[0].path).reshape(32, 3, 32, 4, 3).mean(axis=(1, 3))
    assert np.abs(examples.images[0] - means).max() <= 1


def test_masks_of_patches(items: list[Item]) -> None:
    patch = Patch(items[0], (64, 32), size=64)
    examples = read_examples([patch], 64)
    assert examples.classes == ()
    assert np.array_equal(examples.images[0], pixels_of(items[0].path)[32:96, 64:128])
    assert np.array_equal(examples.truth[0], pixels_of(items[0].mask)[32:96, 64:128] > 0)
    assert examples.names == (patch.name,)
    assert read_examples([patch], 64, mask_above=7).truth.sum() == 0


def test_a_mask_keeps_to_its_picture_when_both_shrink(tmp_path: Path) -> None:
    """Half of the picture is bright, and is foreground: so it stays."""
    half = np.zeros((96, 96), np.uint8)
    half[:, 48:] = 255
    for name, pixels in (("image.png", np.repeat(half[..., None], 3, axis=2)), ("mask.png", half)):
        Image.fromarray(pixels).save(tmp_path / name)
    examples = read_examples([Item(tmp_path / "image.png", "d", "s", mask=tmp_path / "mask.png")], 32)
    assert np.array_equal(examples.truth[0], examples.images[0, ..., 0] > 127)


def test_an_images_own_estimate_and_a_slides(items: list[Item], reference) -> None:
    normalizer = restain.Reinhard().fit(reference.image)
    classes = class_names(items)
    pictures = [pixels_of(item.path) for item in items]
    patches = [Patch(item, (0, 0), size=96) for item in items]

    alone = read_examples(patches, 96, classes, change=normalizer)
    for made, picture in zip(alone.images, pictures, strict=True):
        assert np.array_equal(made, normalizer.transform(np.ascontiguousarray(picture[:, :96])))

    together = read_examples(patches, 96, classes, change=normalizer, estimate="slide")
    appearance = normalizer.estimate(restain.ColorHistogram.from_images(pictures))
    for made, picture in zip(together.images, pictures, strict=True):
        wanted = normalizer.transform(picture, appearance)[:, :96]
        assert np.abs(made.astype(int) - wanted).max() <= 1  # sums in another order
    assert not np.array_equal(alone.images, together.images)


def test_normalizing_comes_before_shrinking(items: list[Item]) -> None:
    def threshold(image: np.ndarray) -> np.ndarray:
        return np.where(image > 150, 255, 0).astype(np.uint8)

    shrunk = read_examples(items, 32, class_names(items), change=threshold).images
    assert len(np.unique(shrunk)) > 2  # means of black and white


def test_examples_that_were_read_can_be_normalized(items: list[Item]) -> None:
    examples = read_examples(items, 32, class_names(items))
    inverted = examples.changed(lambda image: 255 - image)
    assert np.array_equal(inverted.images, 255 - examples.images)
    assert inverted.names == examples.names
    with pytest.raises(InputError, match="same size"):
        examples.changed(lambda image: image[:8])


def test_arrays() -> None:
    images = np.arange(2 * 16 * 16 * 3, dtype=np.uint8).reshape(2, 16, 16, 3)
    images[1] += 1
    examples = make_examples(images, [0, 1], ("a", "b"))
    assert examples.truth.dtype == np.int64
    assert len(set(examples.names)) == 2
    assert examples.names == examples.groups == make_examples(images, [1, 1], ("a", "b")).names


@pytest.mark.parametrize(
    ("images", "truth", "classes"),
    [
        (np.zeros((2, 16, 16), np.uint8), [0, 1], ("a", "b")),
        (np.zeros((2, 16, 16, 3)), [0, 1], ("a", "b")),
        (np.zeros((0, 16, 16, 3), np.uint8), np.zeros(0, np.int64), ("a", "b")),
        (np.zeros((2, 16, 16, 3), np.uint8), [0, 2], ("a", "b")),
        (np.zeros((2, 16, 16, 3), np.uint8), [0, -1], ("a", "b")),
        (np.zeros((2, 16, 16, 3), np.uint8), [0.0, 1.0], ("a", "b")),
        (np.zeros((2, 16, 16, 3), np.uint8), [0], ("a", "b")),
        (np.zeros((2, 16, 16, 3), np.uint8), np.zeros((2, 16, 16), np.uint8), ()),
        (np.zeros((2, 16, 16, 3), np.uint8), np.zeros((2, 8, 8), bool), ()),
    ],
)
def test_arrays_that_do_not_fit_are_refused(images, truth, classes) -> None:
    with pytest.raises(InputError, match="wanted"):
        make_examples(images, truth, classes)


def test_items_without_what_is_needed_are_refused(items: list[Item], tmp_path: Path) -> None:
    bare = Item(items[0].path, "phantom", "slide")
    for classes, said in ((("upper",), "no label"), ((), "no mask")):
        with pytest.raises(InputError, match=said):
            read_examples([bare], 32, classes)
    with pytest.raises(InputError, match="called 'lower'"):
        read_examples(items, 32, ("upper",))
    with pytest.raises(InputError, match="pixels there"):  # half outside the picture
        read_examples([Patch(items[0], (96, 0), size=64)], 32)
    with pytest.raises(InputError, match="level 1"):
        read_examples([Patch(items[0], (0, 0), size=16, level=0), Patch(items[0], (0, 0), size=16, level=1)], 32)
