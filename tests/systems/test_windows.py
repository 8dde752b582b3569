"""What is between pixels and a network: tensors, reflection, and the tiles that statistics are measured on."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from restain.errors import InputError  # noqa: E402  (after the skip)
from restain.methods.window_grid import reflected  # noqa: E402
from restain.networks import inference  # noqa: E402
from restain.networks.norm_statistics import has_norms  # noqa: E402
from restain.phantom import Phantom  # noqa: E402
from restain.systems import base  # noqa: E402
from restain.systems.windows import (  # noqa: E402
    NetworkWindows,
    choose_device,
    image_tiles,
    pad_to_multiple,
    to_tensor,
)

from .small import WHITE, make, noise, trained  # noqa: E402

GLASS = np.array([240.0, 240.0, 240.0])


# ---- tensors -----------------------------------------------------------------------------------------------------


def test_pixels_become_floats_of_0_to_1() -> None:
    image = noise(5, 7)
    tensor = to_tensor(np.stack([image, image[::-1]]))
    assert tensor.shape == (2, 3, 5, 7)
    assert tensor.dtype == torch.float32
    np.testing.assert_array_equal(tensor[0, :, 2, 3].numpy(), image[2, 3] / np.float32(255))
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    image.setflags(write=False)
    to_tensor(image[None])  # a warning would be an error here


def test_devices_by_name() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("length", [1, 2, 3, 5, 40])
@pytest.mark.parametrize("more", [0, 1, 2, 17, 100])
def test_reflection_is_numpys(length: int, more: int) -> None:
    np.testing.assert_array_equal(reflected(0, length + more, length), np.pad(np.arange(length), (0, more), "reflect"))


@pytest.mark.parametrize(
    ("size", "multiple", "least", "wanted"),
    [
        ((8, 12), 4, 1, (8, 12)),
        ((7, 9), 4, 1, (8, 12)),
        ((1, 1), 4, 8, (8, 8)),
        ((3, 500), 4, 8, (8, 500)),
        ((200, 257), 256, 256, (256, 512)),
        ((1, 5), 1, 2, (2, 5)),
    ],
)
def test_images_are_padded_at_the_right_and_below(size, multiple: int, least: int, wanted) -> None:
    images = torch.rand(2, 3, *size)
    padded = pad_to_multiple(images, multiple, least)
    assert padded.shape == (2, 3, *wanted)
    margins = ((0, 0), (0, 0), (0, wanted[0] - size[0]), (0, wanted[1] - size[1]))
    np.testing.assert_array_equal(padded.numpy(), np.pad(images.numpy(), margins, "reflect"))


# ---- tiles -------------------------------------------------------------------------------------------------------


def painted(shares: list[list[float]], side: int = 40) -> np.ndarray:
    """Tiles with these shares of tissue on glass; the tissue's red is the tile's number."""
    rows, columns = len(shares), len(shares[0])
    image = np.full((rows * side, columns * side, 3), 240, np.uint8)
    for row in range(rows):
        for column in range(columns):
            high = round(shares[row][column] * side)
            image[row * side : row * side + high, column * side : (column + 1) * side] = (
                row * columns + column,
                80,
                160,
            )
    return image


def numbers(tiles: list[np.ndarray]) -> list[int]:
    return [int(tile[0, 0, 0]) for tile in tiles]


def test_tiles_of_tissue_are_taken_before_those_of_glass() -> None:
    image = painted([[1, 0, 0, 0.6], [0, 0.2, 1, 0], [0, 0, 0.3, 0.05]])
    assert numbers(image_tiles(image, GLASS, 3, 40)) == [0, 3, 6]  # half of their area
    assert numbers(image_tiles(image, GLASS, 4, 40)) == [0, 3, 6, 10]  # the richest of the others
    assert numbers(image_tiles(image, GLASS, 16, 40)) == [0, 3, 5, 6, 10, 11]  # never those of glass alone


def test_tiles_with_tissue_in_half_of_their_area_are_all_alike() -> None:
    assert numbers(image_tiles(painted([[0.5, 1, 0.4, 1, 0.6]]), GLASS, 2, 40)) == [0, 4]


def test_a_choice_among_equals_is_spread_over_the_image() -> None:
    image = painted([[1] * 10] * 10)
    tiles = image_tiles(image, GLASS, 12, 40)
    chosen = np.array(numbers(tiles))
    assert len(set(chosen)) == 12
    assert (chosen[0], chosen[-1]) == (0, 99)
    assert np.diff(chosen).max() <= 10
    assert all(tile.shape == (40, 40, 3) for tile in tiles)


def test_tiles_of_an_image_thinner_than_a_tile() -> None:
    image = noise(3, 700)
    tiles = image_tiles(image, GLASS, 16, 256)
    assert [tile.shape for tile in tiles] == [(3, 256, 3), (3, 256, 3)]
    np.testing.assert_array_equal(np.concatenate(tiles, axis=1), image[:, :512])


def test_glass_alone_gives_no_tiles() -> None:
    assert image_tiles(np.full((90, 90, 3), 238, np.uint8), GLASS, 4, 40) == []


# ---- windows -----------------------------------------------------------------------------------------------------


def test_windows_of_glass_are_spared_the_network(phantom: Phantom) -> None:
    system = trained("staingan")
    windows = NetworkWindows(system, system.estimate(phantom.image))
    seen = []
    windows._network.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    blank = np.full((512, 512, 3), 243, np.uint8)
    tissue = blank.copy()
    tissue[:192, :256] = phantom.image
    mixed = np.stack([blank, tissue, blank])
    out = windows(mixed)
    assert seen == [1]
    np.testing.assert_array_equal(out[0], out[2])
    np.testing.assert_allclose(out[0], np.broadcast_to((236.0, 231.0, 228.0), out[0].shape), atol=1.5)
    np.testing.assert_array_equal(out[1], windows(mixed[1:2])[0])
    windows(blank[None])
    assert seen == [1, 1]


def test_small_windows_go_to_the_network_together() -> None:
    for name, side, batch in (("staingan", 512, 1), ("stst", 256, 4)):
        system = trained(name)
        system.device = "cpu"
        windows = NetworkWindows(system, system.estimate(noise(8, 8)))
        assert (windows.side, windows.batch) == (side, batch)
        assert windows._ready().shape[0] == batch


@pytest.mark.parametrize(
    ("hardware", "share", "wanted"), [(True, 0.9, "bfloat16"), (True, 1.01, "float32"), (False, 0.9, "float32")]
)
def test_a_slides_tiles_decide_over_bfloat16(
    hardware: bool, share: float, wanted: str, phantom: Phantom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the hardware has it, and enough of the tiles' pixels come out the same; windows are then run in it."""
    for module in (base, inference):
        monkeypatch.setattr(module, "has_bfloat16", lambda device: hardware)
    monkeypatch.setattr(inference, "SAME_SHARE", share)
    system = make("stst", trainable=False).finish(WHITE, "glass", {})
    system.device = "cpu"
    appearance = system.estimate(phantom.image, tiles=[phantom.image[:128, :128]])
    assert appearance.precision == wanted
    window = np.tile(phantom.image, (2, 1, 1))[None, :256, :256]
    windows = NetworkWindows(system, appearance)
    made = windows(window)
    assert windows._ready().dtype == getattr(torch, wanted)
    exact = NetworkWindows(system, replace(appearance, precision="float32"))(window)
    apart = np.abs(made - exact).max(axis=-1)
    assert (apart <= 1).mean() > 0.9
    assert (apart.max() > 0) == (wanted == "bfloat16")


def test_networks_without_norms_of_a_slide_may_be_run_in_bfloat16_too(
    phantom: Phantom, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (base, inference):
        monkeypatch.setattr(module, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(inference, "SAME_SHARE", 0.1)
    for system, statistics in ((trained("stainnet"), "none"), (trained("stst", inference="eval"), "training")):
        system.device = "cpu"
        appearance = system.estimate(phantom.image, tiles=[phantom.image[:128, :128]])
        assert (appearance.statistics, appearance.norm_statistics) == (statistics, None)
        assert appearance.precision == "bfloat16"


@pytest.mark.parametrize("inference", ["instance", "eval"])
def test_one_image_costs_no_folding(inference: str, phantom: Phantom) -> None:
    """It takes longer than a forward pass: windows are worth it, an image that fits into one is not."""
    system = trained("stst", inference=inference)
    windows = NetworkWindows(system, system.estimate(phantom.image, tiles=[phantom.image[:64, :64]]))
    shared = {weight.data_ptr() for weight in system.generator.parameters()}
    windows.whole(phantom.image[:64, :64])
    assert {weight.data_ptr() for weight in windows._network.parameters()} == shared
    assert not has_norms(windows._ready().network)


def test_a_network_that_gives_no_numbers_is_told() -> None:
    system = trained("staingan")
    windows = NetworkWindows(system, system.estimate(noise(8, 8)))
    windows._network = torch.nn.Identity()
    windows._network.register_forward_hook(lambda _, __, output: output * torch.nan)
    for attempt in (lambda: windows(noise(512, 512)[None]), lambda: windows.whole(noise(16, 16))):
        with pytest.raises(InputError, match="no numbers; its weights are damaged"):
            attempt()


def test_only_what_fits_into_a_window_is_done_at_once() -> None:
    system = trained("staingan")
    windows = NetworkWindows(system, system.estimate(noise(8, 8)))
    assert windows.whole(noise(windows.side, 16)) is not None
    assert windows.whole(noise(windows.side + 1, 16)) is None
