"""`ColorTable`: on tensors of any layout, the same bytes as the `ColorMap` on arrays."""

import copy
import io
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from restain.color.colormap import ColorMap
from restain.errors import InputError

torch = pytest.importorskip("torch")

from restain.networks.color_table import ColorTable, gather_colors  # noqa: E402  (after the skip)

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
sides = st.integers(1, 12)
batches = st.tuples(st.integers(1, 3), sides, sides).flatmap(lambda n: hnp.arrays(np.uint8, (n[0], 3, n[1], n[2])))


@pytest.fixture(scope="module")
def color_map() -> ColorMap:
    return ColorMap(np.random.default_rng(0).integers(0, 256, (256, 256, 256, 3), dtype=np.uint8))


@pytest.fixture(scope="module", params=DEVICES)
def color_table(color_map: ColorMap, request: pytest.FixtureRequest) -> ColorTable:
    return color_map.to_torch().to(request.param)


def random_batch(seed: int, shape: tuple[int, ...] = (2, 3, 40, 33)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def mapped(color_map: ColorMap, batch: np.ndarray) -> np.ndarray:
    """(..., 3, H, W) through the map on arrays."""
    rows = np.moveaxis(batch, -3, -1)
    flat = np.ascontiguousarray(rows).reshape(1, -1, 3)
    return np.moveaxis(color_map(flat).reshape(rows.shape), -1, -3) if batch.size else batch


def on(color_table: ColorTable, batch: np.ndarray) -> "torch.Tensor":
    return torch.from_numpy(batch.copy()).to(color_table.table.device)


# ---- bytes ------------------------------------------------------------------------------------------------------


def test_all_colours(color_map: ColorMap, color_table: ColorTable) -> None:
    everything = np.indices((256, 256, 256), np.uint8).reshape(3, 4096, 4096)
    result = color_table(on(color_table, everything)).cpu().numpy()
    np.testing.assert_array_equal(result.transpose(1, 2, 0).reshape(256, 256, 256, 3), color_map.table)


@given(batch=batches)
def test_any_batch(color_map: ColorMap, color_table: ColorTable, batch: np.ndarray) -> None:
    result = color_table(on(color_table, batch))
    assert result.dtype == torch.uint8
    np.testing.assert_array_equal(result.cpu().numpy(), mapped(color_map, batch))


LAYOUTS = {
    "contiguous": lambda t: t,
    "one image": lambda t: t[0],
    "channels last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "of an (H, W, 3) array": lambda t: t[0].permute(1, 2, 0).contiguous().permute(2, 0, 1),
    "cut out": lambda t: t[..., 3:20, 5:9],
    "strided": lambda t: t[:, :, ::2, ::3],
    "mirrored": lambda t: t.flip(-1),
    "transposed": lambda t: t.transpose(2, 3),
    "of rgba": lambda t: torch.cat([t, t[:, :1]], 1)[:, :3],
    "expanded": lambda t: t[:1].expand(4, -1, -1, -1),
    "gray": lambda t: t[:, :1].expand(-1, 3, -1, -1),
    "no images": lambda t: t[:0],
    "a pixel": lambda t: t[:1, :, :1, :1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout(color_map: ColorMap, color_table: ColorTable, layout: str) -> None:
    images = LAYOUTS[layout](on(color_table, random_batch(1)))
    before = images.clone()
    result = color_table(images)
    assert result.shape == images.shape
    assert result.device == images.device
    assert torch.equal(images, before)
    assert not images.numel() or result.data_ptr() != images.data_ptr()
    np.testing.assert_array_equal(result.cpu().numpy(), mapped(color_map, images.cpu().numpy()))


def test_channels_last_stays_channels_last(color_table: ColorTable) -> None:
    images = on(color_table, random_batch(2)).contiguous(memory_format=torch.channels_last)
    assert color_table(images).is_contiguous(memory_format=torch.channels_last)
    assert color_table(images.float() / 255).is_contiguous(memory_format=torch.channels_last)


# ---- floats -----------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(
    values=st.sampled_from([np.float32, np.float64]).flatmap(
        lambda dtype: hnp.arrays(dtype, (3, 5, 4), elements=st.floats(0, 1, width=32))
    )
)
def test_floats_are_rounded_as_the_map_rounds_them(
    color_map: ColorMap, color_table: ColorTable, values: np.ndarray
) -> None:
    result = color_table(on(color_table, values)).cpu().numpy()
    expected = np.moveaxis(color_map(np.moveaxis(values, 0, -1)), -1, 0)
    assert result.dtype == values.dtype
    # A GPU multiplies by 1/255 where a CPU divides.
    np.testing.assert_allclose(result, expected / 255, rtol=0, atol=np.finfo(values.dtype).eps)
    np.testing.assert_array_equal(np.rint(result * 255), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_levels_held_as_floats_are_exact(color_map: ColorMap, color_table: ColorTable, dtype: "torch.dtype") -> None:
    batch = random_batch(3)
    result = color_table(on(color_table, batch).to(dtype) / 255)
    assert result.dtype == dtype
    levels = (result.double() * 255).round().to(torch.uint8).cpu().numpy()
    np.testing.assert_array_equal(levels, mapped(color_map, batch))


def test_bfloat16_goes_to_the_nearest_level(color_map: ColorMap, color_table: ColorTable) -> None:
    images = on(color_table, random_batch(4)).to(torch.bfloat16) / 255
    levels = (images.double() * 255).round().to(torch.uint8).cpu().numpy()
    result = color_table(images)
    assert result.dtype == torch.bfloat16
    expected = torch.from_numpy(mapped(color_map, levels).copy()).to(torch.bfloat16) / 255
    torch.testing.assert_close(result.cpu(), expected, rtol=2**-7, atol=0)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_ends_of_the_range_are_levels(color_table: ColorTable, dtype: "torch.dtype") -> None:
    ends = torch.tensor([0.0, -0.0, 1.0], dtype=dtype, device=color_table.table.device).reshape(3, 1, 1)
    blue = ColorMap.identity().to_torch().to(ends.device)(ends)
    assert blue.flatten().tolist() == [0, 0, 1]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("value", [-0.1, 1.01, 200.0, float("nan"), float("inf"), -float("inf")])
def test_floats_outside_are_refused(color_table: ColorTable, dtype: "torch.dtype", value: float) -> None:
    images = torch.full((2, 3, 4, 4), 0.5, dtype=dtype, device=color_table.table.device)
    images[1, 2, 3, 3] = value
    with pytest.raises(InputError, match=r"wanted 0\.\.1"):
        color_table(images)


def test_no_gradient_flows(color_table: ColorTable) -> None:
    images = torch.rand(1, 3, 4, 4, device=color_table.table.device, requires_grad=True)
    result = color_table(images)
    assert not result.requires_grad
    assert result.grad_fn is None
    assert not list(color_table.parameters())


# ---- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((4, 4, 3), "channel axis first"),
        ((2, 4, 4, 3), "channel axis first"),
        ((2, 4, 4, 4), "wanted"),
        ((3,), "wanted"),
        ((1, 2, 3, 4, 4), "wanted"),
        ((), "wanted"),
    ],
    ids=str,
)
def test_other_shapes_are_refused(color_table: ColorTable, shape: tuple[int, ...], hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        color_table(torch.zeros(shape, dtype=torch.uint8, device=color_table.table.device))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int8, torch.bool, torch.complex64], ids=str)
def test_other_types_are_refused(color_table: ColorTable, dtype: "torch.dtype") -> None:
    with pytest.raises(InputError, match="wanted uint8"):
        color_table(torch.zeros(1, 3, 4, 4, dtype=dtype, device=color_table.table.device))


@pytest.mark.parametrize("images", [None, np.zeros((3, 4, 4), np.uint8)], ids=["None", "array"])
def test_what_is_no_tensor_is_refused(color_table: ColorTable, images: object) -> None:
    with pytest.raises(InputError, match="wanted a tensor"):
        color_table(images)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32], ids=str)
def test_other_tables_are_refused(dtype: "torch.dtype") -> None:
    images = torch.zeros(3, 1, 1, dtype=torch.uint8)
    with pytest.raises(InputError, match=r"wanted torch\.int32"):
        gather_colors(images, torch.zeros(1, dtype=dtype).expand(1 << 24))
    with pytest.raises(InputError, match=r"wanted torch\.int32"):
        gather_colors(images, torch.zeros(256, dtype=torch.int32))


def test_another_device_is_refused(color_table: ColorTable) -> None:
    with pytest.raises(InputError, match=r"\.to\(device\)"):
        color_table(torch.zeros(3, 4, 4, dtype=torch.uint8, device="meta"))


# ---- the module among others ------------------------------------------------------------------------------------


def network(color_map: ColorMap) -> "torch.nn.Module":
    return torch.nn.Sequential(color_map.to_torch(), torch.nn.Conv2d(3, 2, 1))


def test_a_lazy_map_is_compiled() -> None:
    lazy = ColorMap.from_function(lambda colors: 255.0 - colors, lazy=True).to_torch()
    batch = random_batch(5)
    np.testing.assert_array_equal(lazy(torch.from_numpy(batch)).numpy(), 255 - batch)


def test_in_a_sequential(color_map: ColorMap) -> None:
    both = torch.nn.Sequential(color_map.to_torch(), color_map.to_torch())
    batch = random_batch(6)
    np.testing.assert_array_equal(both(torch.from_numpy(batch)).numpy(), mapped(color_map, mapped(color_map, batch)))
    assert network(color_map)(torch.rand(1, 3, 4, 4)).requires_grad  # the convolution's own gradients are untouched


def test_checkpoints_do_not_hold_the_table(color_map: ColorMap) -> None:
    parent = network(color_map)
    assert set(parent.state_dict()) == {"1.weight", "1.bias"}
    stream = io.BytesIO()
    torch.save(parent.state_dict(), stream)
    assert len(stream.getvalue()) < 10_000
    network(color_map).load_state_dict(parent.state_dict(), strict=True)


@pytest.mark.parametrize("cast", ["half", "double", "bfloat16", "float"])
def test_casting_the_parent_leaves_the_table_alone(color_map: ColorMap, cast: str) -> None:
    parent = getattr(network(color_map), cast)()
    assert parent[0].table.dtype == torch.int32
    batch = random_batch(7)
    np.testing.assert_array_equal(parent[0](torch.from_numpy(batch)).numpy(), mapped(color_map, batch))


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies(color_map: ColorMap, again) -> None:
    table = color_map.to_torch()
    other = again(table)
    batch = random_batch(8)
    np.testing.assert_array_equal(other(torch.from_numpy(batch)).numpy(), mapped(color_map, batch))
    table.table.zero_()
    np.testing.assert_array_equal(other(torch.from_numpy(batch)).numpy(), mapped(color_map, batch))


def test_the_map_does_not_share_memory_with_its_module(color_map: ColorMap) -> None:
    before = color_map(random_batch(9, (8, 8, 3)))
    color_map.to_torch().table.zero_()
    np.testing.assert_array_equal(color_map(random_batch(9, (8, 8, 3))), before)


class Images(torch.utils.data.Dataset):
    """Images that a worker maps."""

    def __init__(self, images: np.ndarray, table: ColorTable) -> None:
        self.images = images
        self.table = table

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> "torch.Tensor":
        return self.table(torch.from_numpy(self.images[index]))


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_in_the_workers_of_a_data_loader(color_map: ColorMap, context: str) -> None:
    if context not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"no {context} on this system")
    batch = random_batch(10, (6, 3, 16, 16))
    loader = torch.utils.data.DataLoader(
        Images(batch, color_map.to_torch()), batch_size=2, num_workers=1, multiprocessing_context=context
    )
    np.testing.assert_array_equal(torch.cat(list(loader)).numpy(), mapped(color_map, batch))


def test_no_temporary_is_larger_than_int32(color_table: ColorTable) -> None:
    """What `table[codes]` would make: a copy of the codes as int64."""
    pixels = 512 * 512
    images = on(color_table, random_batch(11, (1, 3, 512, 512)))
    if images.is_cuda:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        color_table(images)
        assert torch.cuda.max_memory_allocated() - before <= 11 * pixels
        return
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        color_table(images)
    assert max(event.self_cpu_memory_usage for event in profile.events()) == 4 * pixels
