"""One feature vector an image: the mean of a trunk's last maps over all places."""

import torch
from torch import Tensor, nn

from restain.networks.perceptual import IMAGENET_DEVIATION, IMAGENET_MEAN


class PooledFeatures(nn.Module):
    """Images (N, 3, H, W), RGB floats 0..1, to (N, C).

    Attributes:
        features: the trunk.
        caffe: whether it wants B, G, R in 0..255 less (104, 117, 123), and not ImageNet's normalisation.
    """

    def __init__(self, features: nn.Sequential, *, caffe: bool = False) -> None:
        super().__init__()
        self.features = features
        self.caffe = caffe
        shift = (123 / 255, 117 / 255, 104 / 255) if caffe else IMAGENET_MEAN
        scale = (1 / 255,) * 3 if caffe else IMAGENET_DEVIATION
        self.register_buffer("shift", torch.tensor(shift).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(scale).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        normal = (images - self.get_buffer("shift")) / self.get_buffer("scale")
        maps: Tensor = self.features(normal.flip(1) if self.caffe else normal)
        return maps.mean(dim=(2, 3))
