"""Pairs by content: like tissue beside like tissue, whatever the scanner; the same every time; written down."""

import csv
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from restain.errors import InputError
from restain.phantom import STAINS_B, Scanner, make_phantom, render
from restain.systems import SYSTEMS, System
from restain.training.blank import stained_blocks
from restain.training.content_pairs import BINS, gray_descriptions, nearest, pairs_sheet
from restain.training.data import DataSettings, TrainingData
from restain.training.loop import train
from restain.training.run_folder import RunFolder
from restain.training.settings import make_recipe

from .small import assert_same_run, recipe_for

SIDE = 48
BRIGHT, DARK = Scanner(noise=1.0), Scanner(white=(215.0, 205.0, 200.0), noise=1.0)


@pytest.fixture(scope="module")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures of 2×3 crops by a bright scanner, and the same by a dark one in which eosin is strong.

    From picture to picture there is less and less glass, and less and less stain.
    """
    root = tmp_path_factory.mktemp("tissue")
    for number, (glass, strength) in enumerate([(0.0, 1.3), (0.2, 1.1), (0.45, 0.9), (0.7, 0.7)]):
        scene = make_phantom(
            2 * SIDE + 7, 3 * SIDE + 5, seed=number, glass_fraction=glass, strength=(strength, strength), scanner=BRIGHT
        )
        other = render(scene.concentrations * (1.0, 1.4), scene.rbc, STAINS_B, DARK, seed=9)
        for role, image in (("s", scene.image), ("t", other)):
            (root / role).mkdir(exist_ok=True)
            Image.fromarray(image).save(root / role / f"{number}.png")
    return root


def settings_for(tissue: Path, **changes: Any) -> DataSettings:
    values: dict[str, Any] = {"source": tissue / "s", "target": tissue / "t", "crop": SIDE, "batch": 2, "workers": 0}
    return DataSettings(**(values | {"content_pairs": 8, "validation_share": 0.0} | changes))


# ---- which ------------------------------------------------------------------------------------------------------


def test_like_is_paired_with_like_whatever_the_scanner(tissue: Path) -> None:
    """The dark scanner's list holds every crop of the bright one's: most find themselves, all find their like."""
    data = TrainingData(settings_for(tissue, content_pairs=20))
    assert len(data.content_pairs) == 20
    assert not data.paired
    places = [[(p.name, p.location) for p in (pair.source, pair.target)] for pair in data.content_pairs]
    assert np.mean([source == target for source, target in places]) > 0.5
    share = {"source": [], "target": []}
    for role, white in (("source", BRIGHT.white), ("target", DARK.white)):
        for pictures in data.training[role]:
            image = np.asarray(Image.open(pictures.path))
            x, y = pictures.location
            share[role].append(stained_blocks(image[y : y + SIDE, x : x + SIDE], white).mean())
    differences = np.abs(np.subtract(share["source"], share["target"]))
    by_chance = np.abs(np.subtract.outer(share["source"], share["target"]))
    assert differences.mean() < by_chance.mean() / 4
    assert len({(pair.target.path, pair.target.location) for pair in data.content_pairs}) == 20


def test_crops_are_whole_have_tissue_and_come_from_all_files(tissue: Path) -> None:
    data = TrainingData(settings_for(tissue))
    for role in ("source", "target"):
        for picture in data.training[role]:
            assert picture.size == (SIDE, SIDE)
            assert all(start % SIDE == 0 for start in picture.location)
    assert {pair.source.name for pair in data.content_pairs} == {"0", "1", "2", "3"}
    bright = [np.asarray(image) for image, _ in data.content_images()]
    assert all(stained_blocks(image, BRIGHT.white).mean() >= 0.05 for image in bright)


def test_they_are_always_the_same_and_follow_the_seed(tissue: Path, tmp_path: Path) -> None:
    first = TrainingData(settings_for(tissue))
    again = TrainingData(settings_for(tissue, cache_bytes=0))
    assert [(p.source, p.target, p.distance) for p in first.content_pairs] == [
        (p.source, p.target, p.distance) for p in again.content_pairs
    ]
    assert first.digest == again.digest
    assert first.digest != TrainingData(settings_for(tissue, seed=1)).digest
    for one, other in zip(first.batches(1), again.batches(1), strict=True):
        assert torch.equal(one["source"], other["source"])
        assert torch.equal(one["target"], other["target"])


def test_an_epoch_is_all_pairs_drawn_together(tissue: Path) -> None:
    data = TrainingData(settings_for(tissue, rotate=True))
    assert data.batches_per_epoch == 4
    pairs = [tuple(np.sort(image.reshape(-1, 3), axis=0).tobytes() for image in pair) for pair in data.content_images()]
    found = [
        tuple(np.sort(batch[role][i].permute(1, 2, 0).reshape(-1, 3).numpy(), axis=0).tobytes() for role in data.roles)
        for batch in data.batches(0)
        for i in range(2)
    ]
    assert sorted(found) == sorted(pairs)


def test_few_and_small_pictures_give_what_they_have(tissue: Path, tmp_path: Path) -> None:
    for number in range(3):
        image = make_phantom(40, 60, seed=number, scanner=BRIGHT).image
        for role in ("s", "t")[: 2 if number == 0 else 1]:
            (tmp_path / role).mkdir(exist_ok=True)
            Image.fromarray(image).save(tmp_path / role / f"{number}.png")
    data = TrainingData(settings_for(tmp_path))
    assert [picture.size for picture in data.training["source"]] == [(48, 40)] * 3
    assert any("3 pairs were made by content, of 8 wanted, with 1 crops of the target" in note for note in data.notes)
    assert next(data.batches(0))["source"].shape == (2, 3, SIDE, SIDE)


def test_glass_is_looked_for_in_all_files(tissue: Path) -> None:
    """The pairs have tissue; what the target's glass is like is seen elsewhere, too."""
    few, all_of_it = (TrainingData(settings_for(tissue, content_pairs=count)) for count in (1, 0))
    assert len({picture.path for picture in few.training["target"]}) == 1
    assert few.histogram("target") == all_of_it.histogram("target")


def test_registered_pairs_go_first(tissue: Path) -> None:
    data = TrainingData(settings_for(tissue, pairs="names"))
    assert data.paired
    assert not data.content_pairs
    assert any("pairs are given" in note for note in data.notes)
    alone = TrainingData(settings_for(tissue, source=()))
    assert not alone.content_pairs


def test_validation_images_are_never_paired(tissue: Path) -> None:
    data = TrainingData(settings_for(tissue, validation_share=0.3))
    held = {picture.name for pictures in data.validation.values() for picture in pictures}
    assert held
    assert not held & {picture.name for pictures in data.training.values() for picture in pictures}
    assert data.validation["source"][0].size == (3 * SIDE + 5, 2 * SIDE + 7)


# ---- by what ----------------------------------------------------------------------------------------------------


@given(st.integers(1, 7), st.integers(1, 5), st.integers(0, 99))
def test_the_nearest_that_is_left(rows: int, columns: int, seed: int) -> None:
    distances = np.random.default_rng(seed).random((rows, columns))
    found = nearest(distances)
    for first in range(0, rows, columns):
        part = found[first : first + columns]
        assert len(set(part)) == len(part)
        for k, column in enumerate(part):
            others = [j for j in range(columns) if j not in part[:k]]
            assert distances[first + k, column] == min(distances[first + k, j] for j in others)


def test_descriptions_do_not_see_brightness_and_tone() -> None:
    """Any rising curve on the gray levels of a list leaves its descriptions what they were."""
    grays = np.zeros((6, 256))
    generator = np.random.default_rng(0)
    grays[:, 40:140] = generator.dirichlet(np.full(100, 0.3), 6)
    tissue = generator.random(6)
    other = np.zeros_like(grays)
    other[:, np.rint(np.linspace(0, 1, 100) ** 0.7 * 200 + np.arange(100) * 0.5).astype(int)] = grays[:, 40:140]
    assert not np.array_equal(grays, other)
    made = gray_descriptions(grays, tissue)
    assert made.shape == (6, BINS)
    np.testing.assert_allclose(gray_descriptions(other, tissue), made, atol=1e-12)


def test_a_description_is_counted_as_it_says() -> None:
    """Of pixels one by one: the share of a crop's that are below each sixteenth of all."""
    crops = [np.random.default_rng(k).normal(120, 10 + 5 * k, 4000) + 6 * k for k in range(4)]
    grays = np.stack([np.bincount(np.clip(crop, 0, 255).astype(int), minlength=256) / crop.size for crop in crops])
    made = gray_descriptions(grays, np.array([0.1, 0.2, 0.3, 0.4]))
    limits = np.quantile(np.concatenate(crops), np.arange(1, BINS) / BINS)
    expected = [(crop[:, None] < limits).mean(axis=0) for crop in crops]
    np.testing.assert_allclose(made[:, :-1] * np.sqrt(BINS - 1), expected, atol=0.01)  # levels are whole numbers
    assert made[:, -1].tolist() == [0.1, 0.2, 0.3, 0.4]
    np.testing.assert_allclose(made[:, :-1].mean(axis=0) * np.sqrt(BINS - 1), np.arange(1, BINS) / BINS)


def test_lists_without_any_tissue_are_paired_all_the_same(tmp_path: Path) -> None:
    for role in ("s", "t"):
        (tmp_path / role).mkdir()
        for number in range(3):
            Image.fromarray(np.full((SIDE, SIDE, 3), 240 + number, np.uint8)).save(tmp_path / role / f"{number}.png")
    assert len(TrainingData(settings_for(tmp_path)).content_pairs) == 3


def test_a_descriptor_decides_where_there_is_one(tissue: Path) -> None:
    """By the mean of green alone, checked one by one."""
    shapes = set()

    def green(images: Tensor) -> Tensor:
        shapes.add(tuple(images.shape))
        assert images.dtype == torch.float32
        assert 0 <= float(images.min()) <= float(images.max()) <= 1
        return images[:, 1].mean(dim=(1, 2))[:, None]

    data = TrainingData(settings_for(tissue), descriptor=green)
    assert shapes == {(1, 3, SIDE, SIDE)}
    means = [[float(image[..., 1].mean()) / 255 for image in pair] for pair in data.content_images()]
    for (one, other), pair in zip(means, data.content_pairs, strict=True):
        assert pair.distance == pytest.approx(abs(one - other), abs=1e-6)
    with pytest.raises(InputError, match="not all finite"):
        TrainingData(settings_for(tissue), descriptor=lambda images: images.mean(dim=(1, 2, 3)) * torch.nan)


# ---- in a run ---------------------------------------------------------------------------------------------------


@pytest.fixture
def by_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a system whose config has the setting."""
    monkeypatch.setattr("restain.systems.stainnet.StainNetConfig.content_pairs", 6, raising=False)
    monkeypatch.setattr("restain.systems.stainnet.StainNetStudent.paired", False)


@pytest.mark.usefixtures("quick", "by_content")
def test_a_run_says_which_it_made_and_can_be_resumed(
    tissue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"source": [str(tissue / "s")], "target": [str(tissue / "t")], "pairs": "", "validation_share": 0.0}
    recipe = recipe_for("stainnet", tissue, data=data, training={"max_steps": 7})
    assert recipe.data.content_pairs == 6
    train(recipe, tmp_path / "whole", quiet=True)
    with (tmp_path / "whole" / "pairs.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    with TrainingData(recipe.data) as made:
        expected = [(p.source.path, p.source.location, p.target.path, p.target.location) for p in made.content_pairs]
    found = [(Path(r["source_file"]), (int(r["source_x"]), int(r["source_y"]))) for r in rows]
    assert found == [(path, place) for path, place, _, _ in expected]
    assert [Path(r["target_file"]) for r in rows] == [path for _, _, path, _ in expected]
    assert all(float(r["distance"]) >= 0 for r in rows)
    sheet = np.asarray(Image.open(tmp_path / "whole" / "pairs.png"))
    assert sheet.std() > 10

    update, calls = SYSTEMS["stainnet"].update, iter(range(4))
    with monkeypatch.context() as patch:
        patch.setattr(SYSTEMS["stainnet"], "update", lambda *given: (next(calls), update(*given))[1])
        with pytest.raises(StopIteration):
            train(recipe, tmp_path / "part", quiet=True)
    train(recipe, tmp_path / "part", resume=True, quiet=True)
    assert_same_run(tmp_path / "whole", tmp_path / "part")
    texts = [(tmp_path / run / "pairs.csv").read_bytes() for run in ("whole", "part")]
    assert texts[0] == texts[1]
    # A run without pairs that takes the place of one with them keeps none of them.
    RunFolder.create(tmp_path / "part", make_recipe(recipe.plain()).plain(), overwrite=True).close()
    assert not list((tmp_path / "part").glob("pairs.*"))


@pytest.mark.usefixtures("quick", "by_content")
def test_a_systems_own_descriptor_is_asked(tissue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert System.content_descriptor(SYSTEMS["stst"](config={"channels": 2})) is None
    asked = []
    descriptor = lambda images: (asked.append(len(images)), images.mean(dim=(2, 3)))[1]  # noqa: E731
    monkeypatch.setattr(SYSTEMS["stainnet"], "content_descriptor", lambda self: descriptor)
    data = {"source": [str(tissue / "s")], "target": [str(tissue / "t")], "pairs": "", "validation_share": 0.0}
    train(recipe_for("stainnet", tissue, data=data, training={"max_steps": 1}), tmp_path / "run", quiet=True)
    assert len(asked) > 12


def test_a_sheet_shows_each_source_beside_its_target() -> None:
    tiles = [tuple(np.full((64, 64, 3), level, np.uint8) for level in (k, 255 - k)) for k in range(40)]
    for count in (1, 8, 9, 32, 40):
        sheet = np.asarray(pairs_sheet(tiles[:count]))
        across = min(-(-count // 8), 4)
        row = sheet[60]  # through the first tiles
        seen = [int(level) for level, _ in itertools.groupby(row[:, 0].tolist()) if level != 48]
        down = -(-min(count, 32) // across)
        assert seen == [level for k in range(across) for level in (k * down, 255 - k * down)]
