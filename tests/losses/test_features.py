"""The distance of features against sums over layers by NumPy."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from restain.errors import InputError  # noqa: E402  (after the skip)
from restain.losses.features import feature_distance  # noqa: E402

SHAPES = ((2, 4, 8, 8), (2, 8, 4, 4), (2, 16, 2, 2))
WEIGHTS = (0.1, 0.2, 0.7)


def features(seed: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in SHAPES]


@pytest.mark.parametrize("norm", ["l1", "mse"])
def test_it_is_the_weighted_sum_of_means(norm) -> None:
    made, wanted = features(0), features(1)
    apart = [np.abs(a.detach().numpy() - b.detach().numpy()) for a, b in zip(made, wanted, strict=True)]
    expected = sum(w * (d if norm == "l1" else d**2).mean() for w, d in zip(WEIGHTS, apart, strict=True))
    assert feature_distance(made, wanted, WEIGHTS, norm).item() == pytest.approx(expected, rel=1e-12)
    assert feature_distance(made, made, WEIGHTS, norm).item() == 0


def test_gradients_reach_what_was_made_alone() -> None:
    made, wanted = features(0), features(1)
    feature_distance(made, wanted, WEIGHTS).backward()
    for one, other, weight in zip(made, wanted, WEIGHTS, strict=True):
        assert other.grad is None
        torch.testing.assert_close(one.grad, weight * (one - other).detach().sign() / one.numel())


def test_half_precision_is_not_trusted() -> None:
    made, wanted = features(0, torch.bfloat16), features(1, torch.bfloat16)
    found = feature_distance(made, wanted, WEIGHTS)
    assert found.dtype == torch.float32
    exact = feature_distance([f.double() for f in made], [f.double() for f in wanted], WEIGHTS)
    assert found.item() == pytest.approx(exact.item(), rel=1e-5)


def test_layers_without_a_counterpart_are_refused() -> None:
    made, wanted = features(0), features(1)
    for arguments in ((made[:2], wanted, WEIGHTS), (made, wanted[:2], WEIGHTS), (made, wanted, (1.0,)), ([], [], ())):
        with pytest.raises(InputError, match="got features of"):
            feature_distance(*arguments)
    with pytest.raises(InputError, match="norm='l2'"):
        feature_distance(made, wanted, WEIGHTS, "l2")  # type: ignore[arg-type]
