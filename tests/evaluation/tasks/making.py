"""Images that a tiny network can learn in seconds: two tints, and bright squares to be found."""

import numpy as np

from restain.evaluation.tasks.examples import Examples, make_examples

SIDE = 32


TINTS = np.array([[1.0, 0.5, 0.7], [0.6, 0.6, 1.0], [0.8, 1.0, 0.6]])


def tinted(
    count: int = 12, *, seed: int = 0, classes: tuple[str, ...] = ("rose", "blue"), of_group: int = 2
) -> Examples:
    """Noise of one tint, the class, in turn; as many as `of_group` belong to one patient."""
    generator = np.random.default_rng(seed)
    truth = np.arange(count) % len(classes)
    levels = generator.integers(100, 220, (count, SIDE, SIDE, 1)) * TINTS[truth][:, None, None]
    groups = [f"{seed}: patient {i // of_group}" for i in range(count)]
    return make_examples(
        levels.astype(np.uint8), truth, classes, names=[f"{g}, {i}" for i, g in enumerate(groups)], groups=groups
    )


def squares(count: int = 6, *, seed: int = 0) -> Examples:
    """A bright square on dark ground in each image; each image is of a patient of its own."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 60, (count, SIDE, SIDE, 3), dtype=np.uint8)
    masks = np.zeros((count, SIDE, SIDE), np.bool_)
    for image, mask in zip(images, masks, strict=True):
        top, left = generator.integers(0, SIDE - 12, 2)
        mask[top : top + 10, left : left + 12] = True
        image[mask] += 150
    return make_examples(images, masks, groups=[f"{seed}: patient {i}" for i in range(count)])
