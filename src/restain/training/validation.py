"""What a training is judged by on the way: the validation loss, and a sheet of pictures."""

import torch
from PIL import Image
from torch import Tensor

from restain.color.images import RGB8
from restain.systems import System
from restain.training.data import TrainingData
from restain.training.sheet import validation_sheet


def validation_loss(system: System, data: TrainingData, device: torch.device, most: int) -> float | None:
    """The system's own, as the mean over at most so many validation images; None where it has none, or there are none.

    Args:
        system: its networks in evaluation mode.
        data: what is trained on.
        device: where the networks are.
        most: images of each list.
    """
    total, count = 0.0, 0
    with torch.inference_mode():
        for batch in data.validation_batches(most=most):
            images = {name: to_floats(value.to(device)) for name, value in batch.items()}
            loss = system.validation_loss(images)
            if loss is None:
                return None
            number = len(next(iter(images.values())))
            total, count = total + float(loss) * number, count + number
    return total / count if count else None


def picture_sheet(system: System, data: TrainingData, count: int, title: str) -> Image.Image:
    """Validation tiles, as they are, normalized, and beside them what the target looks like.

    Args:
        system: ready to normalize.
        data: what is trained on.
        count: rows.
        title: one line on top.
    """
    images = {role: to_images(batch) for role, batch in data.validation_images(count).items()}
    shown = "source" if "source" in images else "target"
    columns = {shown: images[shown], "normalized": [system.transform(image) for image in images[shown]]}
    if shown == "source" and "target" in images:
        columns["target" if data.paired else "a target"] = images["target"]
    least = min(map(len, columns.values()))
    return validation_sheet({name: tiles[:least] for name, tiles in columns.items()}, title)


def to_floats(images: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) as floats in 0..1; labels, which are int64, stay what they are."""
    return images if images.dtype == torch.int64 else images.float().div_(255)


def to_images(batch: Tensor) -> list[RGB8]:
    """uint8 (N, 3, H, W) as N arrays (H, W, 3)."""
    return [image.permute(1, 2, 0).contiguous().numpy() for image in batch]
