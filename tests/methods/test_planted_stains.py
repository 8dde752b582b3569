"""Methods that look for stain vectors find those that a phantom was stained with, hematoxylin first."""

import numpy as np
import pytest

from restain import Macenko, Vahadane
from restain.phantom import STAINS_A, STAINS_B, Scanner, make_phantom

from .oracles import angles_between

pytestmark = [
    pytest.mark.parametrize("method", [Macenko, Vahadane]),
    pytest.mark.parametrize("stains", [STAINS_A, STAINS_B], ids=["A", "B"]),
]


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize(("seed", "blood"), [(0, False), (1, False), (0, True), (1, True)])
def test_planted_stains_come_back(
    method: type[Macenko | Vahadane], seed: int, blood: bool, stains: np.ndarray, noise: float
) -> None:
    scanner = Scanner(white=(236.0, 231.0, 228.0), noise=noise)
    phantom = make_phantom(384, 384, seed=seed, stain_matrix=stains, scanner=scanner, blood=blood)
    appearance = method().estimate(phantom.image)
    assert angles_between(appearance.stain_matrix, stains).max() <= 2
    assert appearance.angle == pytest.approx(angles_between(*appearance.stain_matrix[:, None])[0])


@pytest.mark.parametrize("blood", [False, True])
@pytest.mark.parametrize("strength", [(1.0, 1.0), (0.4, 1.3), (1.3, 0.4)])
def test_hematoxylin_never_swaps_with_eosin(
    method: type[Macenko | Vahadane], stains: np.ndarray, strength: tuple[float, float], blood: bool
) -> None:
    scanner = Scanner(noise=1.0)
    phantom = make_phantom(256, 256, seed=2, stain_matrix=stains, scanner=scanner, strength=strength, blood=blood)
    found = method().estimate(phantom.image).stain_matrix
    assert found[0, 0] > found[1, 0]
    for row in range(2):
        toward = angles_between(np.broadcast_to(found[row], (2, 3)), stains)
        assert toward[row] < toward[1 - row]
    assert (found >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
