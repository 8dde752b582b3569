"""A normalizer of every method by its name, with what it cannot be made without."""

import functools

import numpy as np

from restain import METHODS
from restain.methods.base import Normalizer


@functools.cache
def stainnet_weights() -> dict[str, np.ndarray]:
    """A small 1×1 network that tints and bends colours: the identity by two ReLUs each way, plus a little of all."""
    generator = np.random.default_rng(4)
    both = np.vstack([np.eye(3), -np.eye(3), generator.normal(0, 0.5, (26, 3))])
    through = np.eye(32) + np.pad(generator.normal(0, 0.02, (26, 26)), ((6, 0), (6, 0)))
    back = np.hstack([np.eye(3), -np.eye(3), generator.normal(0, 0.05, (3, 26))])
    biases = {f"bias{layer}": generator.normal(0, 0.02, size) for layer, size in ((1, 32), (2, 32), (3, 3))}
    biases["bias1"][:6] = biases["bias2"][:6] = 0
    return {"weight1": both, "weight2": through, "weight3": back, **biases}


@functools.cache
def lattice_table() -> dict[str, np.ndarray]:
    """A coarse lattice that tints, bends and is a little uneven everywhere."""
    axis = np.linspace(0, 255, 9)
    levels = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    bent = levels @ [[0.9, 0.08, 0.03], [0.05, 0.95, 0.05], [0.0, 0.05, 0.9]] + 8 * np.sin(levels / 40)
    return {"levels": bent + np.random.default_rng(5).normal(0, 2, levels.shape)}


def make(name: str, **arguments) -> Normalizer:
    """`METHODS[name](**arguments)`, with weights or a table for the maps that are given beforehand."""
    given = {"stainnet": {"weights": stainnet_weights()}, "lattice": {"table": lattice_table()}}
    needed = given.get(name, {})
    return METHODS[name](**(needed | arguments))
