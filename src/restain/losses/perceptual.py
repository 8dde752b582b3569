"""Content and style of images, by what a network sees in them.

Gatys, Ecker & Bethge, "Image style transfer using convolutional neural networks", 2016; Nishar, Chavanke & Singhal,
"Histopathological stain transfer using style transfer network with adversarial loss", 2020 (PAPERS §6.2).

Two forms. `scale_free`: differences are taken relative to what is wanted, so that the size of the image, the number of
channels and the scale of the features do not enter, and the weights of the terms mean the same everywhere. `paper`: the
bare sums of squares, which the weights have to make up for.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from restain.errors import InputError
from restain.losses.precision import precise

LossForm = Literal["scale_free", "paper"]


def gram(features: Tensor) -> Tensor:
    """How much the channels of each image's features occur together, wherever they do.

    Args:
        features: (N, C, H, W).

    Returns:
        (N, C, C): Σ over places of F_i · F_j, divided by C · H · W, so that the size of the image does not count. Not
        below float32.
    """
    # Autocast would multiply bf16, whose three digits are too few for sums over all places.
    with torch.autocast(features.device.type, enabled=False):
        flat = precise(features).flatten(2)
        return flat @ flat.mT / (flat.shape[1] * flat.shape[2])


def content_loss(made: Tensor, wanted: Tensor, form: LossForm = "scale_free") -> Tensor:
    """How far features are from those of the image whose content is to be kept: Σ(F − W)², divided by ΣW² unless `form`
    is "paper".

    Args:
        made: (N, C, H, W), of the restyled images.
        wanted: the same, of the images that they were; no gradient passes to them.
        form: see the module.

    Returns:
        A scalar, the mean over images.
    """
    return _distance(precise(made), precise(wanted.detach()), form)


def style_loss(made: Sequence[Tensor], wanted: Sequence[Tensor], form: LossForm = "scale_free") -> Tensor:
    """How far Gram matrices are from those of the image whose style is wanted: at each layer ‖G − W‖²_F, divided by
    ‖W‖²_F unless `form` is "paper"; the sum over layers.

    Args:
        made: features (N, C, H, W) of the restyled images, a tensor a layer.
        wanted: features of the references, whose sizes may be others; no gradient passes to them.
        form: see the module.

    Returns:
        A scalar, the mean over images.

    Raises:
        InputError: not as many layers of one as of the other, or none.
    """
    if len(made) != len(wanted) or not made:
        raise InputError(f"got features of {len(made)} and {len(wanted)} layers")
    layers = [_distance(gram(one), gram(other.detach()), form) for one, other in zip(made, wanted, strict=True)]
    return torch.stack(layers).sum()


def _distance(made: Tensor, wanted: Tensor, form: LossForm) -> Tensor:
    if form not in get_args(LossForm):
        raise InputError(f"got form={form!r}; wanted one of {', '.join(get_args(LossForm))}")
    squares = (made - wanted).square().flatten(1).sum(dim=1)
    if form == "scale_free":
        # The floor is for features that are all 0, as random ones of a black image are.
        squares = squares / wanted.square().flatten(1).sum(dim=1).clamp_min(1e-30)
    return squares.mean()
