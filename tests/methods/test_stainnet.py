"""StainNet as a method: the authors' files, float64, and glass that is not tinted."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import restain
from restain import ColorHistogram
from restain.color.glass import PRIOR_WHITE
from restain.errors import FormatError, InputError
from restain.methods.stainnet import MOST_LAYERS, MOST_WEIGHTS
from restain.phantom import Phantom
from restain.released import import_stainnet, read_stainnet

from .making import make, stainnet_weights

RELEASED = ("aligned_cytopathology_dataset", "aligned_histopathology_dataset", "camelyon16_dataset")


def convolve(state: dict, codes: torch.Tensor) -> np.ndarray:
    """What the released network makes of colours (n,) as codes: plain convolutions in float64, 0..255, not rounded."""
    planes = torch.stack([codes >> 16, (codes >> 8) & 255, codes & 255])[None, :, None].to(torch.float64)
    values = planes / 127.5 - 1
    layers = [name.removesuffix(".weight") for name in state if name.endswith(".weight")]
    for layer in layers:
        weight, bias = (state[f"{layer}.{kind}"].to(torch.float64) for kind in ("weight", "bias"))
        values = torch.nn.functional.conv2d(values, weight, bias)
        values = values if layer == layers[-1] else values.relu()
    return ((values * 0.5 + 0.5).clamp(0, 1) * 255)[0, :, 0].T.numpy()


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A file in the authors' form, with the test's weights."""
    state = {}
    for layer, place in enumerate((0, 2, 4), 1):
        state[f"rgb_trans.{place}.weight"] = torch.tensor(stainnet_weights()[f"weight{layer}"])[:, :, None, None]
        state[f"rgb_trans.{place}.bias"] = torch.tensor(stainnet_weights()[f"bias{layer}"])
    torch.save(state, tmp_path / "released.pth")
    return tmp_path / "released.pth"


@pytest.mark.parametrize("name", RELEASED)
def test_all_colours_of_the_released_weights_are_those_of_their_convolutions(name: str, data: Path) -> None:
    path = data / "weights" / "stainnet" / f"{name}.pth"
    normalizer = import_stainnet(path, background="none")
    assert sum(array.size for array in normalizer.weights.values()) == 1283
    table = normalizer.color_map(normalizer.reference_).table.reshape(-1, 3)
    state = torch.load(path, map_location="cpu", weights_only=True)
    for start in range(0, 1 << 24, 1 << 20):
        expected = convolve(state, torch.arange(start, start + (1 << 20)))
        difference = np.abs(table[start : start + (1 << 20)] - expected)
        assert difference.max() <= 0.5 + 1e-9  # rounded once, at the end


def test_the_tint_of_glass_is_mended(data: Path) -> None:
    path = data / "weights" / "stainnet" / "aligned_histopathology_dataset.pth"
    blank = np.full((64, 64, 3), 255, np.uint8)
    bare, mended = (import_stainnet(path, background=way).transform(blank)[0, 0] for way in ("none", "match"))
    assert np.ptp(bare.astype(int)) > np.ptp(mended.astype(int)) == 0
    like_a_scanner = np.random.default_rng(0).normal((232, 231, 234), 1.0, (64, 64, 3)).round().astype(np.uint8)
    fitted = import_stainnet(path, like_a_scanner).transform(blank)
    np.testing.assert_allclose(fitted.mean(axis=(0, 1)), (232, 231, 234), atol=1.5)


def test_tissue_is_what_the_network_gives(phantom: Phantom) -> None:
    """The glass that is wanted changes nothing far from glass."""
    normalizer = make("stainnet")
    dark = phantom.image.reshape(-1, 3)[(phantom.image.reshape(-1, 3) < 150).all(axis=1)]
    assert len(dark) > 100
    appearance = normalizer.estimate(phantom.image)
    level = normalizer.reference_.white_point
    expected = np.minimum(normalizer.evaluate(dark), level)
    np.testing.assert_allclose(normalizer.map_colors(dark, appearance), expected, rtol=0, atol=1e-9)


def test_a_released_file(released: Path, phantom: Phantom) -> None:
    normalizer = import_stainnet(released)
    assert normalizer == make("stainnet")
    assert list(normalizer.provenance_) == ["weights"]


@pytest.mark.parametrize(("given", "told"), [(None, "unknown"), ("CC0-1.0", "CC0-1.0")])
def test_where_the_weights_come_from_is_kept(given: str | None, told: str, released: Path, phantom: Phantom) -> None:
    """Whatever reference is fitted, before or after the normalizer was saved."""
    facts = {"sha256": hashlib.sha256(released.read_bytes()).hexdigest(), "training_data_license": told}
    reference = replace(ColorHistogram.from_image(phantom.image), provenance={"slide": "an id"})
    normalizer = import_stainnet(released, reference, training_data_license=given)
    assert normalizer.provenance_ == {"slide": "an id", "weights": facts}
    normalizer.save(released.with_suffix(".safetensors"))
    loaded = restain.load(released.with_suffix(".safetensors"))
    assert loaded.fit(phantom.image).provenance_ == {"weights": facts}
    assert loaded.fit(reference).provenance_ == {"slide": "an id", "weights": facts}


def test_the_callers_arrays_may_change_afterwards() -> None:
    given = {name: array.copy() for name, array in stainnet_weights().items()}
    normalizer = restain.StainNet(weights=given)
    for array in given.values():
        array[:] = 0
    assert normalizer == make("stainnet")


@pytest.mark.parametrize("background", ["match", "none"])
def test_the_wanted_glass_is_as_bright_as_the_network_makes_it(background: str) -> None:
    """Computed without the kernels, when the normalizer is made; see the imports' tests."""
    normalizer = make("stainnet", background=background)
    level = 255.0 if background == "none" else normalizer.evaluate(np.array([PRIOR_WHITE])).max()
    np.testing.assert_allclose(normalizer.reference_.white_point, level, rtol=0, atol=1e-9)


def test_a_file_with_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"rgb_trans.0.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(FormatError, match=r"evil\.pth is damaged or holds more than tensors"):
        read_stainnet(tmp_path / "evil.pth")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("length", [0, 1, 10, 200, 3000])
def test_a_truncated_file(released: Path, length: int) -> None:
    released.write_bytes(released.read_bytes()[:length])
    with pytest.raises(FormatError, match=r"released\.pth"):
        read_stainnet(released)


OTHER_FILES = {
    "a tensor": torch.zeros(3),
    "a list": [torch.zeros(3)],
    "nothing": {},
    "numbers": {"a.weight": 1.0, "a.bias": 2.0},
    "no bias": {"a.weight": torch.zeros(32, 3, 1, 1)},
    "3×3 layers": {"a.weight": torch.zeros(3, 3, 3, 3), "a.bias": torch.zeros(3)},
    "a linear layer": {"a.weight": torch.zeros(3, 3), "a.bias": torch.zeros(3)},
    "a tensor that claims to be huge": {"a.weight": torch.zeros(1).expand(10**13, 3, 1, 1), "a.bias": torch.zeros(3)},
    "many tensors that claim to be large": {
        f"{layer}.{kind}": torch.zeros(1).expand(MOST_WEIGHTS // 10)
        for layer in range(20)
        for kind in ("weight", "bias")
    },
    "a tensor without values": {"a.weight": torch.zeros(3, 3, 1, 1, device="meta"), "a.bias": torch.zeros(3)},
    "names that move the cursor": {"a\n\x1b[2J.weight": torch.zeros(3, 3, 3, 3), "a\n\x1b[2J.bias": torch.zeros(3)},
    "a sparse tensor": {"a.weight": torch.zeros(3, 3, 1, 1).to_sparse(), "a.bias": torch.zeros(3)},
    "complex numbers": {"a.weight": torch.zeros(3, 3, 1, 1, dtype=torch.complex64), "a.bias": torch.zeros(3)},
    "whole numbers": {"a.weight": torch.zeros(3, 3, 1, 1, dtype=torch.int64), "a.bias": torch.zeros(3)},
    "NaN": {"a.weight": torch.full((3, 3, 1, 1), torch.nan), "a.bias": torch.zeros(3)},
    "layers that do not fit": {"a.weight": torch.zeros(4, 3, 1, 1), "a.bias": torch.zeros(4)},
}


@pytest.mark.parametrize("what", OTHER_FILES)
def test_other_files(what: str, tmp_path: Path) -> None:
    torch.save(OTHER_FILES[what], tmp_path / "other.pth")
    with pytest.raises(FormatError, match=r"other\.pth") as caught:
        read_stainnet(tmp_path / "other.pth")
    assert str(caught.value).isprintable()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_tensors_of_tensors(tmp_path: Path) -> None:
    nested = torch.nested.nested_tensor([torch.zeros(3), torch.zeros(4)])
    torch.save({"a.weight": nested, "a.bias": torch.zeros(3)}, tmp_path / "nested.pth")
    with pytest.raises(FormatError, match=r"nested\.pth: a\.weight is no plain tensor"):
        read_stainnet(tmp_path / "nested.pth")


def test_a_tensor_stored_as_the_negative_of_its_bytes(tmp_path: Path) -> None:
    minus = torch.eye(3, dtype=torch.float64)[:, :, None, None]._neg_view()
    torch.save({"a.weight": minus, "a.bias": torch.zeros(3)}, tmp_path / "negative.pth")
    np.testing.assert_array_equal(read_stainnet(tmp_path / "negative.pth")["weight1"], -np.eye(3))


def test_an_archive_that_cannot_be_listed_is_not_unpacked(released: Path) -> None:
    """Python refuses archives of later versions, which PyTorch would read."""
    damaged = bytearray(released.read_bytes())
    place = -1
    while (place := damaged.find(b"PK\x01\x02", place + 1)) >= 0:
        damaged[place + 6] = 255  # the version needed
    released.write_bytes(damaged)
    with pytest.raises(FormatError, match=r"released\.pth is damaged .*NotImplementedError: zip file version"):
        read_stainnet(released)


def test_an_archive_that_unpacks_to_gigabytes(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(65 << 20))
    assert (tmp_path / "bomb.pth").stat().st_size < 1 << 20
    with pytest.raises(FormatError, match="65 MiB; a StainNet has a few KB"):
        read_stainnet(tmp_path / "bomb.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_are_format_errors(zipped: bool, released: Path) -> None:
    """Whatever byte is hit: numbers come out, or an error that names the file; never another exception."""
    state = torch.load(released, weights_only=True)
    torch.save(state, released, _use_new_zipfile_serialization=zipped)
    whole, generator = released.read_bytes(), np.random.default_rng(5)
    named = []
    for _ in range(150):
        damaged = bytearray(whole)
        for place in generator.integers(0, len(whole) if zipped else 2000, 3):
            damaged[place] = int(generator.integers(256))
        released.write_bytes(damaged)
        try:
            weights = read_stainnet(released)
        except FormatError as error:
            named.append(str(released) in str(error))
        else:
            assert all(np.isfinite(array).all() for array in weights.values())
    assert all(named)
    assert len(named) > 10


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is not a file"):
        read_stainnet(tmp_path / "none.pth")
    (tmp_path / "large.pth").touch()
    with (tmp_path / "large.pth").open("rb+") as stream:
        stream.truncate(65 << 20)
    with pytest.raises(FormatError, match="65 MiB; a StainNet has a few KB"):
        read_stainnet(tmp_path / "large.pth")


WEIGHTS = stainnet_weights()
IMPOSSIBLE = {
    "none": (None, "restain import stainnet"),
    "a list": ([1, 2], "of type list"),
    "no layers": ({}, "of type dict"),
    "a layer missing": ({k: v for k, v in WEIGHTS.items() if k != "bias2"}, "wanted weight1, bias1"),
    "another name": ({**{k: v for k, v in WEIGHTS.items() if k != "bias2"}, "b2": WEIGHTS["bias2"]}, "named"),
    "layers that do not fit": (WEIGHTS | {"weight2": np.zeros((32, 31))}, r"wanted \(m, 32\)"),
    "a bias that does not fit": (WEIGHTS | {"bias2": np.zeros(31)}, "with bias"),
    "four channels out": (WEIGHTS | {"weight3": np.zeros((4, 32)), "bias3": np.zeros(4)}, "has 4 channels"),
    "NaN": (WEIGHTS | {"bias3": np.full(3, np.nan)}, "not finite"),
    "far too wide": (
        {"weight1": np.zeros((MOST_WEIGHTS // 3, 3)), "bias1": np.zeros(MOST_WEIGHTS // 3)},
        "133,332 weights; wanted at most 100,000",
    ),
    "far too deep": (
        {
            f"{k}{i}": np.zeros((3, 3) if k == "weight" else 3)
            for i in range(MOST_LAYERS + 1)
            for k in ("weight", "bias")
        },
        "17 layers; wanted at most 16",
    ),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_impossible_weights(what: str) -> None:
    weights, message = IMPOSSIBLE[what]
    with pytest.raises(InputError, match=message):
        restain.StainNet(weights=weights)


def test_any_number_of_layers() -> None:
    """The identity by a single layer, and by two with ReLU that keep both signs."""
    one = {"weight1": np.eye(3), "bias1": np.zeros(3)}
    both = np.vstack([np.eye(3), -np.eye(3)])
    two = {"weight1": both, "bias1": np.zeros(6), "weight2": both.T, "bias2": np.zeros(3)}
    colors = np.random.default_rng(0).integers(0, 256, (100, 3))
    for weights in (one, two):
        np.testing.assert_allclose(restain.StainNet(weights=weights).evaluate(colors), colors, atol=1e-12)
