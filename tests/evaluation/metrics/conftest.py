"""Two pictures of the same tissue to compare, and the calls that every metric of pairs must answer."""

import sys

import numpy as np
import pytest
from scipy import ndimage

from restain.phantom import Phantom, Scanner, make_phantom

Pair = tuple[np.ndarray, np.ndarray]


@pytest.fixture(autouse=True)
def one_thread():
    """Tests run beside each other: threads of small networks would mostly wait for one another."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 0
    if torch:
        torch.set_num_threads(1)
    yield
    if torch:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tissue() -> Phantom:
    """Phantom tissue with glass, 200 × 232: large enough for five scales, and for no metric square."""
    return make_phantom(200, 232, seed=3, scanner=Scanner(white=(243.0, 240.0, 238.0), noise=1.0))


@pytest.fixture(scope="session")
def pair(tissue: Phantom) -> Pair:
    """The tissue, and the same blurred a little, darker, pinker and noisy: similar, not equal."""
    generator = np.random.default_rng(5)
    blurred = ndimage.gaussian_filter(tissue.image.astype(float), (0.7, 0.7, 0))
    changed = blurred * (0.95, 0.85, 0.9) + (6, 4, 12) + generator.normal(0, 3, blurred.shape)
    return tissue.image, np.clip(np.rint(changed), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def unrelated() -> Pair:
    """Two pictures of noise that have nothing to do with each other, 200 × 184."""
    generator = np.random.default_rng(6)
    first, second = (generator.integers(0, 256, (200, 184, 3), dtype=np.uint8) for _ in range(2))
    return first, second
