"""`initialize`: the papers' normal weights, from a seed."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  (after the skip)

from restain.networks.initialization import initialize  # noqa: E402


def make() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(64, 64, 4),
        nn.BatchNorm2d(4096),
        nn.ConvTranspose2d(64, 64, 4, bias=False),
        nn.Linear(256, 256),
        nn.InstanceNorm2d(64, affine=True),
        nn.LayerNorm(8),
    )


@pytest.mark.parametrize("std", [0.02, 0.1])
def test_weights_are_normal_and_biases_zero(std: float) -> None:
    network = make()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(3.0)
        network[1].running_mean.fill_(7)
    assert initialize(network, std, generator=torch.Generator().manual_seed(0)) is network
    for index, mean in ((0, 0.0), (1, 1.0), (2, 0.0), (3, 0.0)):
        weight = network[index].weight.detach()
        error = std / weight.numel() ** 0.5
        assert weight.mean().item() == pytest.approx(mean, abs=4 * error)
        assert weight.std().item() == pytest.approx(std, rel=0.06)
        # normal, not uniform: the fourth moment
        assert ((weight - weight.mean()) ** 4).mean().item() / std**4 == pytest.approx(3, rel=0.35)
    for index in (0, 1, 3):
        assert (network[index].bias == 0).all()
    assert (network[1].running_mean == 0).all()
    for index in (4, 5):
        assert (network[index].weight == 3).all()


def test_a_seed_gives_the_same_weights() -> None:
    one, same, other = (initialize(make(), generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    for a, b in zip(one.parameters(), same.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert not torch.equal(one[0].weight, other[0].weight)
    torch.manual_seed(5)
    first = initialize(make())
    torch.manual_seed(5)
    torch.testing.assert_close(initialize(make())[0].weight, first[0].weight, rtol=0, atol=0)
