"""AlexNet: Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014 (one column)."""

import torch
from torch import Tensor, nn


class AlexNet(nn.Module):
    """Five convolutions and three linear layers; 61,100,840 parameters with 1000 classes.

    Attributes:
        features: the convolutions. Modules 1, 4, 7, 9 and 11 are the ReLUs that LPIPS compares.
        classifier: the linear layers; None with `classes=0`, when only features are wanted.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = _classifier(classes) if classes else None

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W), sides of 63 or more, to class scores (N, classes), or features (N, 9216)."""
        flat = torch.flatten(self.avgpool(self.features(images)), 1)
        return flat if self.classifier is None else self.classifier(flat)


def _classifier(classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Dropout(),
        nn.Linear(256 * 36, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Linear(4096, classes),
    )
