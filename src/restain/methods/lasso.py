"""Concentrations of two stains by the non-negative lasso, in closed form."""

import numpy as np

from restain.color.spaces import apply_matrix
from restain.methods.base import Floats


def lasso(density: Floats, matrix: Floats, sparsity: float) -> Floats:
    """Concentrations (n, 2) ≥ 0 that minimise ½‖OD − c·M‖² + λ(c₁ + c₂), for two unit stains M (2, 3), in closed form.

    With G = M·Mᵀ and b = OD·Mᵀ − λ: the unconstrained optimum where it is not negative, else the better of the two
    optima with a single stain (of which each is the best on its edge, since the objective is convex).
    """
    gram = matrix @ matrix.T
    b = apply_matrix(density, matrix.T) - sparsity
    determinant = gram[0, 0] * gram[1, 1] - gram[0, 1] ** 2
    if determinant < 1e-12:  # parallel stains: all of it is the first one
        return np.column_stack([np.maximum(b[:, 0] / gram[0, 0], 0.0), np.zeros(len(b))])
    both = np.column_stack(
        [
            (gram[1, 1] * b[:, 0] - gram[0, 1] * b[:, 1]) / determinant,
            (gram[0, 0] * b[:, 1] - gram[0, 1] * b[:, 0]) / determinant,
        ]
    )
    first = np.maximum(b[:, 0] / gram[0, 0], 0.0)
    second = np.maximum(b[:, 1] / gram[1, 1], 0.0)
    # At its own optimum an edge lowers the objective by ½·G·c².
    first_is_better = gram[0, 0] * first**2 >= gram[1, 1] * second**2
    edge = np.column_stack([np.where(first_is_better, first, 0.0), np.where(first_is_better, 0.0, second)])
    inside = (both >= 0.0).all(axis=1, keepdims=True)
    return np.where(inside, both, edge)
