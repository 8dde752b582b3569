"""DSTGAN's networks against the paper's layers written out; what they see, what they learn by, what they keep."""

import io
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402  (after the skip)
from torch.nn import functional as F  # noqa: E402

from restain.errors import InputError  # noqa: E402
from restain.networks.dstgan import DstganContentDiscriminator, DstganGenerator  # noqa: E402
from restain.networks.inference import _in_bfloat16, fast  # noqa: E402

from .swin_by_hand import Array, block, layer_norm  # noqa: E402

TINY = {"channels": 6, "merges": 3, "window": 2, "heads": (1, 2, 3)}
"""For images of 16 × 16."""


def tiny(seed: int = 0, std: float = 0.3, **options) -> DstganGenerator:
    """A generator in float64, in evaluation mode, with weights and biases that matter."""
    network = DstganGenerator(**TINY | options).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, std, generator=generator)
    return network


def gray(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


# ---- the paper's layers -------------------------------------------------------------------------------------------


class ByHand:
    """The generator as PAPERS §2.1 lists it, from a network's weights; maps are (N, H, W, C)."""

    def __init__(self, network: DstganGenerator) -> None:
        self.weights = {name: value.detach().numpy() for name, value in network.named_parameters()}

    def norm(self, maps: Array, name: str) -> Array:
        return layer_norm(maps, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def linear(self, maps: Array, name: str) -> Array:
        return maps @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0)

    def blocks(self, maps: Array, name: str, heads: int) -> Array:
        for number, shifted in enumerate((False, True)):
            start = f"{name}.{number}."
            own = {key.removeprefix(start): value for key, value in self.weights.items() if key.startswith(start)}
            maps = block(maps, own, heads, window=2, shifted=shifted)
        return maps

    def expand(self, maps: Array, name: str, factor: int) -> Array:
        lined = self.linear(maps, f"{name}.linear")
        count, height, width, channels = lined.shape
        laid = np.zeros((count, height * factor, width * factor, channels // factor**2))
        for y in range(factor):
            for x in range(factor):
                laid[:, y::factor, x::factor] = np.split(lined, factor**2, axis=-1)[factor * y + x]
        return self.norm(laid, f"{name}.norm")

    def restore(self, maps: Array, name: str, factor: int, image: Array | None, skip: str) -> Tensor:
        full = self.expand(maps, f"{name}.expand", factor)
        if image is not None:
            full = np.concatenate([full, image], axis=-1) if skip == "concat" else full + image
        weight, bias = (torch.from_numpy(self.weights[f"{name}.to_rgb.0.{part}"]) for part in ("weight", "bias"))
        return F.conv2d(torch.from_numpy(full).permute(0, 3, 1, 2), weight, bias, padding=1).tanh()

    def __call__(self, images: Tensor, first_merge: str, skip: str) -> list[Tensor]:
        image = images.permute(0, 2, 3, 1).numpy()
        maps, across = image, []
        for level, heads in enumerate(TINY["heads"]):
            maps = np.concatenate([maps[:, y::2, x::2] for y in (0, 1) for x in (0, 1)], axis=-1)
            order = (self.norm, self.linear) if level or first_merge == "swin" else (self.linear, self.norm)
            for layer in order:
                maps = layer(maps, f"merge.{level}.{layer.__name__}")
            maps = self.blocks(maps, f"down.{level}", heads)
            across.append(maps)
        maps = self.norm(across.pop(), "norm")
        levels = []
        for number, heads in enumerate(TINY["heads"][1::-1]):
            both = [self.expand(maps, f"join.{number}.expand", 2), across.pop()]
            maps = self.blocks(
                self.linear(np.concatenate(both, axis=-1), f"join.{number}.linear"), f"up.{number}", heads
            )
            levels.append(maps)
        quarter, half = levels
        return [
            self.restore(quarter, "sides.0", 4, None, ""),
            self.restore(half, "sides.1", 2, None, ""),
            self.restore(half, "final", 2, image, skip),
        ]


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((16, 16), {}),
        ((32, 16), {"output_skip": "additive"}),
        ((16, 32), {"first_merge": "swin", "ds_keep_width": True}),
    ],
)
def test_it_is_the_papers(size: tuple[int, int], options: dict) -> None:
    """Also where the map is one window along one axis only, and larger than what is trained on."""
    network, images = tiny(**options), gray(2, 1, *size)
    wanted = ByHand(network)(images, options.get("first_merge", "linear"), options.get("output_skip", "concat"))
    with torch.no_grad():
        made = network(images, "all")
    for image, by_hand in zip(made, wanted, strict=True):
        torch.testing.assert_close(image, by_hand, rtol=1e-8, atol=1e-8)


def test_three_images_of_full_size() -> None:
    """The paper's size, at a fraction of its width: 16× from 1/16, 4× from 1/4, and the final one."""
    network = DstganGenerator(channels=6, heads=(1, 1, 2, 2, 4)).eval()
    assert network.multiple == 256
    assert [side.expand.factor for side in network.sides] == [16, 4]
    images = gray(1, 1, 256, 256).float()
    with torch.inference_mode():
        made = network(images, "all")
        assert torch.equal(network(images), made[2])
    for image in made:
        assert image.shape == (1, 3, 256, 256)
        assert image.abs().max() < 1
        assert image.std() > 0


@pytest.mark.parametrize(("merges", "factors"), [(3, [4, 2]), (4, [8, 4]), (5, [16, 4])])
def test_where_the_side_images_come_from(merges: int, factors: list[int]) -> None:
    network = DstganGenerator(channels=2, merges=merges, window=2, heads=(1,) * merges)
    assert network.multiple == 2 ** (merges + 1)
    assert [side.expand.factor for side in network.sides] == factors


def test_a_side_image_teaches_nothing_above_its_level() -> None:
    network = tiny()
    side, _, _ = network(gray(1, 1, 16, 16), "all")
    side.sum().backward()
    taught: dict[str, bool] = {}
    for name, parameter in network.named_parameters():
        part = ".".join(name.split(".")[:2])
        taught[part] = taught.get(part, False) or parameter.grad is not None
    untaught = {part for part, any_gradient in taught.items() if not any_gradient}
    assert untaught == {"join.1", "up.1", "sides.1", "final.expand", "final.to_rgb"}


@pytest.mark.parametrize("options", [{}, {"output_skip": "additive", "first_merge": "swin", "ds_keep_width": True}])
def test_every_weight_gets_a_gradient(options: dict) -> None:
    network = tiny(**options).train()
    sum(image.square().mean() for image in network(gray(2, 1, 16, 16), "all")).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_the_final_image_teaches_all_but_the_heads_of_the_others() -> None:
    network = tiny().train()
    network(gray(1, 1, 16, 16)).sum().backward()
    untaught = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert untaught
    assert all(name.startswith("sides.") for name in untaught)


def test_the_deepest_level_is_one_window_and_not_shifted() -> None:
    network = tiny()
    last = network.down[-1][1]
    assert last.shifted
    once, twice = gray(1, 1, 16, 16), gray(1, 1, 32, 32)
    with torch.no_grad():
        before, before_twice = network(once), network(twice)
        last.shifted = False
        assert torch.equal(network(once), before)
        assert not torch.allclose(network(twice), before_twice)


def test_without_shifts_quarters_know_nothing_of_each_other() -> None:
    """One pixel is seen in all of its own quarter, by way of the deepest level's window, and one pixel beyond, by the
    convolution; with shifts in the opposite quarter, too."""
    image = gray(1, 1, 32, 32)
    changed = image.clone()
    changed[0, 0, 3, 5] += 0.5
    with torch.no_grad():
        network = tiny(depths=1)
        apart = (network(image) - network(changed)).abs().amax(dim=1)[0] > 0
        assert apart[:16, :16].all()
        apart[:17, :17] = False
        assert not apart.any()
        network = tiny(depths=2)
        apart = (network(image) - network(changed)).abs().amax(dim=1)[0] > 0
        assert apart[17:, 17:].any()


def test_images_of_a_batch_do_not_mix() -> None:
    network, images = tiny(), gray(3, 1, 32, 16)
    with torch.no_grad():
        together = network(images)
        for index in range(3):
            torch.testing.assert_close(together[index], network(images[index : index + 1])[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"merges": 2}, "2 merges"),
        ({"merges": 4}, "heads for 3"),
        ({"first_merge": "conv"}, "first_merge='conv'"),
        ({"output_skip": "none"}, "output_skip='none'"),
        ({"output_skip": ""}, "output_skip=''"),
        ({"channels": 4}, "3 heads for 16 channels"),
    ],
)
def test_what_it_cannot_be_is_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DstganGenerator(**TINY | options)


def test_other_sides_are_refused() -> None:
    with pytest.raises(InputError, match="multiples of 16"):
        tiny()(gray(1, 1, 16, 24))


# ---- memory -------------------------------------------------------------------------------------------------------


def gradients(network: DstganGenerator, images: Tensor) -> list[Tensor]:
    """Of two passes, the second on what the first made, as the second stage has it."""
    network.zero_grad()
    first = network(images, "all")
    second = network(first[2].detach().mean(dim=1, keepdim=True), "all")
    sum(image.square().mean() for image in (*first, *second)).backward()
    return [parameter.grad for parameter in network.parameters()]


def test_checkpointing_changes_no_gradient() -> None:
    kept = tiny(checkpoint=False).train()
    again = tiny(checkpoint=True).train()
    images = gray(2, 1, 32, 16)
    for first, second in zip(gradients(kept, images), gradients(again, images), strict=True):
        assert torch.equal(first, second)


def test_checkpointing_keeps_less() -> None:
    """Bytes that the graph holds between forward and backward, at an eighth of the paper's width."""

    def kept(checkpoint: bool) -> int:
        network = DstganGenerator(channels=6, heads=(1, 1, 2, 2, 4), checkpoint=checkpoint).train()
        weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
        held: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                held[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            made = network(gray(1, 1, 256, 256).float(), "all")
        assert len(made) == 3
        return sum(held.values())

    # Checkpoints keep what goes in by other means than these hooks: a map for each of 31 modules, at most the first's.
    inputs = 31 * 128 * 128 * 6 * 4
    assert kept(False) > 4 * (kept(True) + inputs)


def test_nothing_is_computed_again_in_evaluation() -> None:
    network = tiny(checkpoint=True)
    calls = []
    network.final.register_forward_pre_hook(lambda *_: calls.append(1))
    for training, wanted in ((False, 1), (True, 2)):
        calls.clear()
        network.train(training)(gray(1, 1, 16, 16)).sum().backward()
        assert len(calls) == wanted


# ---- other ways to run it -----------------------------------------------------------------------------------------


def test_made_ready_it_is_the_same() -> None:
    network = tiny().float()
    images = gray(3, 1, 32, 16).float()
    with torch.inference_mode():
        wanted = network(images)
    ready = fast(network, (2, 1, 32, 16), precision="float32")
    torch.testing.assert_close(ready(images), wanted, rtol=1e-4, atol=1e-5)


def test_bfloat16_rounds_all_but_the_picture() -> None:
    """The last convolution stays in float32, so that what is left is the rounding of what goes into it."""
    network = tiny(std=0.1).float()
    images = gray(1, 1, 32, 32).float()
    rounded = _in_bfloat16(network)
    with torch.inference_mode():
        made, wanted = rounded(images.bfloat16()), network(images)
    assert made.dtype == torch.float32
    assert rounded.final.to_rgb[0].layer.weight.dtype == torch.float32
    assert (made - wanted).abs().mean() < 0.1 * wanted.std()
    fine = (made * 2**16).frac().abs() > 0  # digits that bfloat16 does not have
    assert fine.float().mean() > 0.9


def test_another_runtime_gives_the_same() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = tiny().float()
    images = gray(2, 1, 32, 16).float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own
        program = torch.onnx.export(
            network, (images,), dynamo=True, input_names=["gray"], opset_version=20, optimize=False, verbose=False
        )
    file = io.BytesIO()
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    made = session.run(None, {"gray": images.numpy()})[0]
    with torch.inference_mode():
        apart = np.abs(made - network(images).numpy()).max(axis=1)
    assert (apart <= 2 / 255).mean() >= 0.999
    assert apart.max() < 1e-3


# ---- the discriminator --------------------------------------------------------------------------------------------


def discriminator_by_hand(network: DstganContentDiscriminator, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """PAPERS §2.2, with the batch's own statistics."""
    weights = network.state_dict()
    maps, features = images, []
    for number in range(4):
        maps = F.conv2d(maps, weights[f"blocks.{number}.0.weight"], weights.get(f"blocks.{number}.0.bias"), 2, 1)
        if number:
            mean, spread = maps.mean(dim=(0, 2, 3), keepdim=True), maps.var(dim=(0, 2, 3), keepdim=True, correction=0)
            scale, bias = (weights[f"blocks.{number}.1.{part}"][:, None, None] for part in ("weight", "bias"))
            maps = (maps - mean) / (spread + 1e-5).sqrt() * scale + bias
        maps = torch.where(maps > 0, maps, 0.2 * maps)
        features.append(maps)
    places = maps if maps.shape[2] == 16 else maps.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    return (places.flatten(1) * weights["judge.weight"][0]).sum(dim=1, keepdim=True) + weights["judge.bias"], features


@pytest.mark.parametrize("side", [256, 128])
def test_the_content_discriminator_is_the_papers(side: int) -> None:
    """Its pooling does nothing at 256 × 256, and repeats the maps of 128 × 128."""
    network = DstganContentDiscriminator(channels=3).double().train()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    images = torch.rand(2, 3, side, side, generator=generator, dtype=torch.float64) * 2 - 1
    logits, features = network(images)
    wanted, wanted_features = discriminator_by_hand(network, images)
    assert logits.shape == (2, 1)
    torch.testing.assert_close(logits, wanted)
    assert [maps.shape[1:] for maps in features] == [(3 * 2**i, side >> i + 1, side >> i + 1) for i in range(4)]
    for maps, by_hand in zip(features, wanted_features, strict=True):
        torch.testing.assert_close(maps, by_hand)


def test_every_weight_of_the_content_discriminator_gets_a_gradient() -> None:
    network = DstganContentDiscriminator(channels=2)
    logits, features = network(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    (logits.sum() + features[-1].mean()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
