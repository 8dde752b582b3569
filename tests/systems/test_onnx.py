"""Exported networks give, in another runtime, what they give here: within a level, and nearly always the same."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from restain import Macenko, StainNet, load
from restain.errors import InputError, OutputError
from restain.systems import SYSTEMS
from restain.systems.onnx import export_onnx, exportable, run_onnx

onnx = pytest.importorskip("onnx")

WHITE = (232.0, 225.0, 230.0)
CASES = {
    "staingan": {"channels": 4, "blocks": 1, "crop": 32, "discriminator_layers": 1},
    "stst": {"channels": 2},
    "stainnet": {"kernels": (3, 1, 1), "channels": 4},
    "dstgan": {"channels": 6, "merges": 3, "attention_window": 2, "heads": (1, 2, 3), "crop": 32},
    "chen": {"channels": 2, "mask_delta": 4.0, "mask_median": True},
}


def trained(name: str, background: str = "match"):
    torch.manual_seed(3)
    system = SYSTEMS[name](config=CASES[name], trainable=False, background=background)
    if name == "dstgan":  # plain and shifted blocks at one level stand for all: exporting each takes seconds
        for blocks in (*system.generator.down[1:], *system.generator.up):
            del blocks[1:]
    return system.finish(WHITE, "glass", {"a": "b"})


def pictures(side: int) -> np.ndarray:
    """Two images of all levels, the second with a patch of glass; not square."""
    images = np.random.default_rng(0).integers(0, 256, (2, side, 2 * side, 3), dtype=np.uint8)
    images[1, : side // 2, : side // 2] = (241, 240, 239)
    return images


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory):
    """A system and its file, by name, exported once: that takes seconds."""
    folder = tmp_path_factory.mktemp("onnx")

    @functools.cache
    def export(name: str):
        system = trained(name)
        return system, export_onnx(system, folder / f"{name}.onnx")

    return export


@pytest.mark.parametrize("name", CASES)
def test_another_runtime_gives_the_same(name: str, exported) -> None:
    system, path = exported(name)
    images, white = pictures(max(32, system.multiple)), np.array([242.0, 240, 238])
    made = run_onnx(path, images, white, threads=1)
    module, multiple = exportable(system)
    with torch.inference_mode():
        wanted = module(torch.from_numpy(images), torch.from_numpy(white.astype(np.float32))).numpy()
    apart = np.abs(made.astype(int) - wanted)
    assert made.shape == images.shape
    assert made.dtype == np.uint8
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.001
    facts = json.loads({p.key: p.value for p in onnx.load(path).metadata_props}["restain"])
    assert facts["method"] == name
    assert facts["multiple"] == multiple
    assert facts["least_side"] == system.least_side
    assert facts["provenance"] == {"a": "b"}


@pytest.mark.parametrize("background", ["match", "keep", "white", "none"])
def test_what_is_exported_takes_care_of_glass_as_transform_does(background: str) -> None:
    system, image = trained("staingan", background), pictures(32)[1]
    with torch.no_grad():
        system.generator.up[-2].bias.fill_(1.2)  # much of what it makes is brighter than its target's glass
    appearance = system.estimate(image)
    module, _ = exportable(system)
    given = [torch.from_numpy(image[None])]
    if background != "none":
        given.append(torch.from_numpy(appearance.white_point.astype(np.float32)))
    with torch.inference_mode():
        made = module(*given)[0].numpy()
    apart = np.abs(made.astype(int) - system.transform(image, appearance))
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.002


def test_images_of_the_least_side_are_taken(exported) -> None:
    """StainGAN halves twice, and what is left is reflected: 4 × 4 would be a multiple, and too small."""
    system, path = exported("staingan")
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 12, 3), dtype=np.uint8)
    assert system.least_side == 8
    appearance = system.estimate(image[0])
    made = run_onnx(path, image, appearance.white_point, threads=1)[0]
    assert np.abs(made.astype(int) - system.transform(image[0], appearance)).max() <= 1


def test_the_export_is_what_transform_gives(exported) -> None:
    """The whole way: glass, norms of each image, rounding. The white point is given, as the slide's is."""
    system, path = exported("staingan")
    image = pictures(32)[1]
    appearance = system.estimate(image)
    made = run_onnx(path, image[None], appearance.white_point, threads=1)[0]
    apart = np.abs(made.astype(int) - system.transform(image, appearance))
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.002
    with pytest.raises(InputError, match="white point"):
        run_onnx(path, image[None])


def test_a_colour_map_of_weights_is_exported_too(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    weights = {"weight1": generator.normal(0, 0.5, (8, 3)), "bias1": generator.normal(0, 0.1, 8)}
    weights |= {"weight2": generator.normal(0, 0.5, (3, 8)), "bias2": generator.normal(0, 0.1, 3)}
    student = StainNet(weights=weights, background="none")
    image = pictures(16)[0]
    made = run_onnx(export_onnx(student, tmp_path / "s.onnx"), image[None], threads=1)[0]
    apart = np.abs(made.astype(int) - student.transform(image))
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.002


def test_frozen_statistics_are_in_the_file(tmp_path: Path) -> None:
    """Then a tile no longer depends on what else is in the image."""
    system = trained("staingan")
    images = pictures(32)
    appearance = system.estimate(images[0], tiles=list(images[:, :32, :32]))
    path = export_onnx(system, tmp_path / "network.onnx", appearance=appearance)
    wanted = system.transform(images[0], appearance)
    made = run_onnx(path, images[:1], appearance.white_point, threads=1)[0]
    assert np.abs(made.astype(int) - wanted).max() <= 1


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no network"):
        export_onnx(Macenko().fit("he"), tmp_path / "m.onnx")
    (tmp_path / "there.onnx").write_bytes(b"x")
    with pytest.raises(OutputError, match="overwrite"):
        export_onnx(trained("stainnet"), tmp_path / "there.onnx")
    assert (tmp_path / "there.onnx").read_bytes() == b"x"


def test_the_command_exports_a_saved_network(tmp_path: Path, run) -> None:
    trained("stainnet").save(tmp_path / "s.safetensors")
    done = run("export", tmp_path / "s.safetensors", "-o", tmp_path / "s.onnx")
    assert done.code == 0
    assert "stainnet" in done.out
    image = pictures(16)[0]
    student = load(tmp_path / "s.safetensors")
    made = run_onnx(tmp_path / "s.onnx", image[None], (240, 240, 240), threads=1)[0]
    assert made.shape == image.shape
    assert student.name == "stainnet"
    refused = run("export", tmp_path / "s.safetensors", "-o", tmp_path / "s.pt")
    assert refused.code == 2
    assert ".onnx" in refused.err
