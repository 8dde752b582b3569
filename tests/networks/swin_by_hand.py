"""A Swin block written out in NumPy, place by place, in float64: no windows are cut, no map is moved, nothing masked.

Who may look at whom is said by the number of the square that a place lies in. The squares of shifted blocks begin half
a window before the map, so that those at its edges are cut off.
"""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def layer_norm(maps: Array, weight: Array, bias: Array) -> Array:
    """Over the last axis, ε = 1e-5."""
    centred = maps - maps.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * weight + bias


def gelu(values: Array) -> Array:
    """x Φ(x), by the error function."""
    return values * 0.5 * (1 + np.vectorize(math.erf)(values / math.sqrt(2)))


def square_of(place: int, length: int, window: int, shifted: bool) -> int:
    """The number of the square that a place of an axis lies in."""
    shift = window // 2 if shifted and length > window else 0
    return (place - shift) // window  # −1 for those that the edge cuts off


def attention(maps: Array, weights: dict[str, Array], heads: int, window: int, shifted: bool) -> Array:
    """(H, W, C) to the same."""
    height, width, channels = maps.shape
    size = channels // heads
    projected = maps @ weights["attention.query_key_value.weight"].T + weights["attention.query_key_value.bias"]
    query, key, value = np.split(projected, 3, axis=-1)
    table = weights["attention.bias_table"].reshape(2 * window - 1, 2 * window - 1, heads)
    rows = np.array([square_of(y, height, window, shifted) for y in range(height)])
    columns = np.array([square_of(x, width, window, shifted) for x in range(width)])
    out = np.zeros_like(maps)
    for y in range(height):
        for x in range(width):
            ys, xs = np.nonzero((rows == rows[y])[:, None] & (columns == columns[x])[None])
            for head in range(heads):
                part = slice(head * size, (head + 1) * size)
                scores = key[ys, xs, part] @ query[y, x, part] / math.sqrt(size)
                scores += table[y - ys + window - 1, x - xs + window - 1, head]
                shares = np.exp(scores - scores.max())
                out[y, x, part] = shares @ value[ys, xs, part] / shares.sum()
    return out @ weights["attention.together.weight"].T + weights["attention.together.bias"]


def block(maps: Array, weights: dict[str, Array], heads: int, window: int, shifted: bool) -> Array:
    """A whole block of (N, H, W, C), given its weights by name."""
    normed = layer_norm(maps, weights["norm_attention.weight"], weights["norm_attention.bias"])
    maps = maps + np.stack([attention(image, weights, heads, window, shifted) for image in normed])
    normed = layer_norm(maps, weights["norm_layers.weight"], weights["norm_layers.bias"])
    inner = gelu(normed @ weights["layers.0.weight"].T + weights["layers.0.bias"])
    return maps + inner @ weights["layers.2.weight"].T + weights["layers.2.bias"]
