"""SqueezeNet narrower than it was published."""

import pytest

from restain.errors import InputError

torch = pytest.importorskip("torch")

from restain.networks.backbones.squeezenet import Fire, SqueezeNet  # noqa: E402  (after the skip)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_all_channels_are_narrower_alike(version: str) -> None:
    with torch.device("meta"):
        published, narrow = SqueezeNet(version, 2), SqueezeNet(version, 2, width=16)
    for (name, wide), (_, thin) in zip(published.named_parameters(), narrow.named_parameters(), strict=True):
        kept = {0} if name.startswith("classifier") else set()  # classes are not scaled
        kept |= {1} if name == "features.0.weight" else set()  # nor is RGB
        for axis in range(min(wide.ndim, 2)):
            assert thin.shape[axis] == (wide.shape[axis] if axis in kept else wide.shape[axis] // 4), name


def test_the_published_width_is_the_default() -> None:
    with torch.device("meta"):
        given, told = (dict(network.named_parameters()) for network in (SqueezeNet("1.1"), SqueezeNet("1.1", width=64)))
    assert {name: part.shape for name, part in given.items()} == {name: part.shape for name, part in told.items()}


def test_the_narrowest_keeps_a_channel_everywhere() -> None:
    network = SqueezeNet("1.1", 3, width=4).eval()
    assert min(module.squeeze.out_channels for module in network.modules() if isinstance(module, Fire)) == 1
    with torch.inference_mode():
        assert network(torch.rand(2, 3, 64, 64)).shape == (2, 3)


@pytest.mark.parametrize("width", [0, 2, 6, -4])
def test_widths_that_leave_parts_of_channels_are_refused(width: int) -> None:
    with pytest.raises(InputError, match="multiple of 4"):
        SqueezeNet(width=width)
