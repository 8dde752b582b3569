"""Winograd's convolution against PyTorch's, for all sizes and borders."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  (after the skip)

from restain.networks import winograd  # noqa: E402
from restain.networks.winograd import NARROWEST, WinogradConv2d, suits, use_winograd  # noqa: E402


def random_maps(*shape: int, kind: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=kind)


@settings(max_examples=60)
@given(
    height=st.integers(3, 21),
    width=st.integers(3, 21),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    mode=st.sampled_from(["zeros", "reflect", "replicate"]),
    bias=st.booleans(),
    last=st.booleans(),
)
def test_it_is_the_convolution(height, width, channels, padding, mode, bias, last) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(*channels, 3, padding=padding, padding_mode=mode, bias=bias).double()
    maps = random_maps(2, channels[0], height, width)
    if last:
        maps = maps.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        out = WinogradConv2d(convolution)(maps)
        torch.testing.assert_close(out, convolution(maps), rtol=1e-10, atol=1e-10)


def test_blocks_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one row of tiles, then of two with one left over."""
    convolution = nn.Conv2d(3, 4, 3, padding=1).double()
    maps = random_maps(1, 3, 28, 8)
    for rows in (1, 2):
        monkeypatch.setattr(winograd, "_NUMBERS_A_BLOCK", rows * 36 * 2 * 4)
        with torch.no_grad():
            torch.testing.assert_close(WinogradConv2d(convolution)(maps), convolution(maps), rtol=1e-10, atol=1e-10)


def test_float32_is_near() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(128, 128, 3, padding=1, padding_mode="reflect")
    maps = random_maps(1, 128, 32, 32, kind=torch.float32)
    with torch.no_grad():
        wanted = convolution.double()(maps.double())
        out = WinogradConv2d(convolution.float())(maps)
    assert ((out - wanted).abs().max() / wanted.abs().max()).item() < 2e-5


def test_an_image_does_not_see_its_batch() -> None:
    torch.manual_seed(0)
    network = WinogradConv2d(nn.Conv2d(16, 16, 3, padding=1))
    maps = random_maps(3, 16, 20, 20, kind=torch.float32)
    with torch.no_grad():
        assert torch.equal(network(maps)[1:2], network(maps[1:2]))


def test_only_wide_plain_convolutions_are_replaced() -> None:
    n = NARROWEST
    wide = nn.Conv2d(n, n, 3, padding=1)
    others = [
        nn.Conv2d(n, n - 1, 3, padding=1),
        nn.Conv2d(n, n, 3, stride=2),
        nn.Conv2d(n, n, 3, dilation=2),
        nn.Conv2d(n, n, 3, groups=2),
        nn.Conv2d(n, n, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(n, n, 3, padding="same"),
        nn.Conv2d(n, n, 5),
        nn.ConvTranspose2d(n, n, 3),
        nn.ReLU(),
    ]
    assert suits(wide)
    assert not any(suits(other) for other in others)
    network = nn.Sequential(nn.Sequential(wide), *others)
    assert use_winograd(network) == 1
    assert isinstance(network[0][0], WinogradConv2d)
    assert list(network)[1:] == others
