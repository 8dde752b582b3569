"""What the tests of systems share: one thread."""

import pytest


@pytest.fixture(autouse=True)
def one_thread():
    """These networks are too small for two: starting and waiting would take longer than the work."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
