"""Systems small enough to be trained in a moment, and weights with which they make pictures."""

from typing import Any

import numpy as np
import torch
from torch import nn

from restain.networks.initialization import initialize
from restain.systems import SYSTEMS, System

CONFIGS: dict[str, dict[str, Any]] = {
    "staingan": {
        "channels": 4,
        "blocks": 1,
        "crop": 32,
        "batch_size": 2,
        "discriminator_channels": 4,
        "discriminator_layers": 2,
        "pool_size": 2,
    },
    "stainnet": {"channels": 6, "kernels": (3, 1, 3), "crop": 32, "batch_size": 2},
    "stst": {"channels": 2, "crop": 256},
    "chen": {"channels": 2, "discriminator_channels": 2, "crop": 128, "batch_size": 2},
    "dstgan": {
        "channels": 6,
        "merges": 3,
        "attention_window": 2,
        "heads": (1, 2, 3),
        "discriminator_channels": 4,
        "hist_bins": 16,
        "hist_size": 32,
        "crop": 32,
        "batch_size": 2,
        "checkpoint": False,
    },
    "nst": {
        "channels": 2,
        "body": "lite",
        "stem_stride": 1,
        "discriminator_channels": 4,
        "feature_network": "squeezenet1_0",
        "feature_weights": "random",
        "style_layers": ("relu1", "fire2"),
        "crop": 32,
        "batch_size": 2,
    },
}
"""Settings by the system's name."""

STATISTICS = {
    "staingan": "slide",
    "stst": "slide",
    "stainnet": "none",
    "chen": "training",
    "dstgan": "none",
    "nst": "training",
}
"""Whose statistics the norm layers have on a slide; StainNet's student has no norms."""

WHITE = (236.0, 231.0, 228.0)
"""The target's glass."""

FACTS = {"training": {"steps": 3, "training_data_license": "CC0-1.0"}}


def make(name: str, *, background: str = "match", trainable: bool = True, seed: int = 0, **config: Any) -> System:
    """A system with its initial weights."""
    torch.manual_seed(seed)
    return SYSTEMS[name](config=CONFIGS[name] | config, background=background, trainable=trainable)


def trained(name: str, *, seed: int = 0, **arguments: Any) -> System:
    """A system that makes pictures, as after a training: the papers' first weights are so small that all is gray."""
    system = make(name, trainable=False, seed=seed, **arguments)
    enliven(system.generator, seed)
    return system.finish(WHITE, "glass", FACTS)


def enliven(network: nn.Module, seed: int = 0) -> None:
    """Give a network larger weights, and batch norms biases and running statistics that matter."""
    generator = torch.Generator().manual_seed(seed)
    initialize(network, 0.15, generator=generator)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.normal_(0, 0.3, generator=generator)
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)


def lively(name: str, **config: Any) -> Any:
    """A system in float64, with weights so large that every part of the loss matters, ready to be updated.

    A network that judges another's pictures by a task keeps its weights.
    """
    system = make(name, **config)
    for seed, (part, network) in enumerate(system.networks().items()):
        if part != "task":
            enliven(network, seed)
        network.double().train()
    system.optimizers = system.make_optimizers()
    return system


def batch(system: System, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    """Images of every domain, in 0..1."""
    generator = torch.Generator().manual_seed(seed)
    size = (system.config.batch_size, 3, system.config.crop, system.config.crop)
    return {domain: torch.rand(size, generator=generator, dtype=dtype) for domain in system.domains}


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Any image: (height, width, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
