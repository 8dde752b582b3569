"""Swin's parts against NumPy, place by place; who sees whom; and the blocks in another runtime."""

import io
import warnings
from itertools import product

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402  (after the skip)

from restain.errors import InputError  # noqa: E402
from restain.networks.swin import (  # noqa: E402
    PatchEmbedding,
    PatchExpanding,
    PatchMerging,
    SwinBlock,
    WindowAttention,
    _relative_places,
    from_windows,
    initialize_swin,
    squares,
    to_windows,
)

from .swin_by_hand import block as block_by_hand  # noqa: E402
from .swin_by_hand import layer_norm, square_of  # noqa: E402


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def lively(module: nn.Module, seed: int = 0) -> nn.Module:
    """In float64, every weight and bias a random number that matters."""
    generator = torch.Generator().manual_seed(seed)
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return module


def numbers(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in module.named_parameters()}


@pytest.mark.parametrize(("height", "width", "window"), [(8, 12, 4), (3, 3, 3), (6, 2, 2)])
def test_windows_are_put_together_as_they_were_cut(height: int, width: int, window: int) -> None:
    maps = random(2, height, width, 5)
    windows = to_windows(maps, window)
    assert windows.shape == (2 * height * width // window**2, window**2, 5)
    torch.testing.assert_close(windows[0], maps[0, :window, :window].reshape(-1, 5), rtol=0, atol=0)
    torch.testing.assert_close(windows[-1], maps[-1, -window:, -window:].reshape(-1, 5), rtol=0, atol=0)
    torch.testing.assert_close(from_windows(windows, window, height, width), maps, rtol=0, atol=0)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(
    ("height", "width", "window"),
    [(8, 12, 4), (4, 8, 4), (8, 4, 4), (4, 4, 4), (8, 8, 8), (9, 6, 3), (6, 4, 2)],
)
def test_a_block_is_attention_place_by_place(height: int, width: int, window: int, shifted: bool) -> None:
    block = lively(SwinBlock(6, 3, window, shifted, mlp_ratio=2))
    maps = random(2, height, width, 6)
    with torch.no_grad():
        made = block(maps).numpy()
    wanted = block_by_hand(maps.numpy(), numbers(block), heads=3, window=window, shifted=shifted)
    np.testing.assert_allclose(made, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("height", "width"), [(8, 12), (4, 8), (4, 4)])
def test_a_place_sees_its_square_and_nothing_else(height: int, width: int, shifted: bool) -> None:
    """By gradients, for every place: what the shift brings around the edge stays unseen."""
    block = lively(SwinBlock(4, 1, 4, shifted, mlp_ratio=1))
    maps = random(1, height, width, 4).requires_grad_()
    out = block(maps)
    for y, x in product(range(height), range(width)):
        (gradient,) = torch.autograd.grad(out[0, y, x].sum(), maps, retain_graph=True)
        seen = gradient[0].abs().sum(dim=-1).numpy() > 0
        rows = [square_of(i, height, 4, shifted) == square_of(y, height, 4, shifted) for i in range(height)]
        columns = [square_of(i, width, 4, shifted) == square_of(x, width, 4, shifted) for i in range(width)]
        np.testing.assert_array_equal(seen, np.outer(rows, columns))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (2, 2)])
def test_one_window_is_not_shifted(height: int, width: int) -> None:
    block = lively(SwinBlock(4, 2, window=height, shifted=True))
    maps = random(1, height, width, 4)
    twice = maps.repeat(1, 2, 2, 1)
    with torch.no_grad():
        shifted, shifted_twice = block(maps), block(twice)
        block.shifted = False
        assert torch.equal(shifted, block(maps))
        assert not torch.allclose(shifted_twice, block(twice))


def test_every_relative_place_has_its_bias() -> None:
    """15 × 15 of them in windows of 8, by their row, then their column."""
    attention = WindowAttention(6, 3, 8)
    assert attention.bias_table.shape == (225, 3)
    found = _relative_places(8, torch.device("cpu")).reshape(8, 8, 8, 8).numpy()
    for y, x, v, u in product(range(8), repeat=4):
        assert found[y, x, v, u] == (y - v + 7) * 15 + (x - u + 7)


def test_shifted_images_of_a_batch_do_not_mix() -> None:
    block = lively(SwinBlock(4, 2, 2, shifted=True))
    maps = random(3, 6, 4, 4)
    with torch.no_grad():
        together = block(maps)
        for index in range(3):
            torch.testing.assert_close(together[index], block(maps[index : index + 1])[0])


# ---- sizes --------------------------------------------------------------------------------------------------------


def squares_by_hand(maps: np.ndarray) -> np.ndarray:
    parts = [maps[:, y::2, x::2] for y in (0, 1) for x in (0, 1)]
    return np.concatenate(parts, axis=-1)


def test_merging_halves() -> None:
    maps = random(2, 6, 4, 3)
    np.testing.assert_array_equal(squares(maps).numpy(), squares_by_hand(maps.numpy()))
    merging = lively(PatchMerging(3, 6))
    weights = numbers(merging)
    normed = layer_norm(squares_by_hand(maps.numpy()), weights["norm.weight"], weights["norm.bias"])
    with torch.no_grad():
        np.testing.assert_allclose(merging(maps).numpy(), normed @ weights["linear.weight"].T, rtol=1e-10, atol=1e-10)


def test_embedding_halves() -> None:
    images = random(2, 6, 4, 1)
    embedding = lively(PatchEmbedding(1, 5))
    weights = numbers(embedding)
    lined = squares_by_hand(images.numpy()) @ weights["linear.weight"].T + weights["linear.bias"]
    wanted = layer_norm(lined, weights["norm.weight"], weights["norm.bias"])
    with torch.no_grad():
        np.testing.assert_allclose(embedding(images).numpy(), wanted, rtol=1e-10, atol=1e-10)


def test_merging_does_not_see_how_bright_a_gray_image_is_and_embedding_does() -> None:
    """Why the first layer is another: here an image and one half as contrasty and brighter."""
    images = 100 * random(1, 8, 8, 1)
    merging, embedding = lively(PatchMerging(1, 4)), lively(PatchEmbedding(1, 4))
    with torch.no_grad():
        torch.testing.assert_close(merging(images), merging(images / 2 + 30), rtol=1e-4, atol=1e-4)
        assert (embedding(images) - embedding(images / 2 + 30)).abs().mean() > 0.1


@pytest.mark.parametrize("factor", [2, 4])
def test_expanding_lays_channels_out_as_squares(factor: int) -> None:
    maps = random(2, 3, 2, 8)
    expanding = lively(PatchExpanding(8, 4, factor))
    weights = numbers(expanding)
    lined = maps.numpy() @ weights["linear.weight"].T
    laid = np.zeros((2, 3 * factor, 2 * factor, 4))
    for y, x in product(range(factor), repeat=2):
        first = 4 * (factor * y + x)
        laid[:, y::factor, x::factor] = lined[..., first : first + 4]
    with torch.no_grad():
        made = expanding(maps).numpy()
    np.testing.assert_allclose(made, layer_norm(laid, weights["norm.weight"], weights["norm.bias"]), rtol=1e-10)


# ---- weights, errors, another runtime -----------------------------------------------------------------------------


def test_weights_start_as_swins() -> None:
    network = nn.Sequential(SwinBlock(96, 3), nn.Conv2d(96, 96, 3))
    for parameter in network.parameters():
        nn.init.constant_(parameter, 7)
    initialize_swin(network, generator=torch.Generator().manual_seed(0))
    for name, parameter in network.state_dict().items():
        if "norm" in name:
            assert torch.all(parameter == (1 if name.endswith("weight") else 0)), name
        elif name.endswith("bias"):
            assert torch.all(parameter == 0), name
        else:
            few = 4 / parameter.numel() ** 0.5  # standard errors
            assert abs(parameter.mean()) < 0.02 * few, name
            assert parameter.std() == pytest.approx(0.02, rel=few), name
    again = initialize_swin(
        nn.Sequential(SwinBlock(96, 3), nn.Conv2d(96, 96, 3)), generator=torch.Generator().manual_seed(0)
    )
    for first, second in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(first, second)


def test_heads_must_share_the_channels_out() -> None:
    with pytest.raises(InputError, match="5 heads for 6 channels"):
        SwinBlock(6, 5)


def test_an_exported_block_takes_all_sizes() -> None:
    """One file for maps of one window along an axis, which are not shifted there, and of several, which are."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    block = lively(SwinBlock(4, 2, 4, shifted=True, mlp_ratio=1)).float().eval()
    dim = torch.export.Dim
    sides = {1: 4 * dim("h", min=1, max=64), 2: 4 * dim("w", min=1, max=64)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own
        program = torch.onnx.export(
            block,
            (torch.randn(2, 8, 12, 4),),
            dynamo=True,
            input_names=["maps"],
            dynamic_shapes=[{0: dim("n"), **sides}],
            opset_version=20,
            optimize=False,
            verbose=False,
        )
    file = io.BytesIO()
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    for height, width in [(4, 4), (4, 8), (12, 4), (8, 8)]:
        maps = random(3, height, width, 4).float()
        with torch.no_grad():
            wanted = block(maps).numpy()
        np.testing.assert_allclose(session.run(None, {"maps": maps.numpy()})[0], wanted, rtol=1e-4, atol=1e-4)
