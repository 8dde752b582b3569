"""Batches: the same whatever the workers, processes and interruptions; pairs together; splits that leak nothing."""

import gc
import json
import multiprocessing
import pickle
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from restain.color.glass import find_white_point
from restain.errors import InputError, RestainError, SlideError
from restain.phantom import Scanner, make_phantom
from restain.slides.writer import PyramidSettings, write_array
from restain.training.blank import STAINED_SHARE, stained_blocks
from restain.training.data import Batch, DataSettings, TrainingData

SCANNER = Scanner(noise=1.0)


def flat(number: int, side: int = 40) -> np.ndarray:
    """An image whose every pixel says its number, and where it is."""
    y, x = np.mgrid[:side, :side]
    return np.dstack([np.full((side, side), number), y, x]).astype(np.uint8)


def save(folder: Path, images: Iterable[np.ndarray], name: str = "{:03d}.png") -> Path:
    for number, image in enumerate(images):
        path = folder / name.format(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Eleven sources, numbered from 0, and five targets, from 100."""
    root = tmp_path_factory.mktemp("data")
    save(root / "s", (flat(i) for i in range(11)), "s{:02d}.png")
    save(root / "t", (flat(100 + i) for i in range(5)), "t{:02d}.png")
    return str(root / "s"), str(root / "t")


def settings_for(folders: tuple[str, str], **changes: Any) -> DataSettings:
    values = {"source": (folders[0],), "target": (folders[1],), "crop": 16, "batch": 4, "validation_share": 0.0}
    return DataSettings(**(values | changes))


def numbers(batches: Iterable[Batch], role: str) -> list[int]:
    return [int(n) for batch in batches for n in batch[role][:, 0, 0, 0]]


def equal(first: Iterable[Batch], second: Iterable[Batch]) -> bool:
    one, other = list(first), list(second)
    same = [a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) for a, b in zip(one, other, strict=True)]
    return bool(one) and all(same)


# ---- order ------------------------------------------------------------------------------------------------------


def test_batches_are_bytes_in_channels_last_memory(folders: tuple[str, str]) -> None:
    data = TrainingData(settings_for(folders))
    batch = next(data.batches(0))
    assert set(batch) == {"source", "target"}
    for images in batch.values():
        assert images.dtype == torch.uint8
        assert images.shape == (4, 3, 16, 16)
        assert images.is_contiguous(memory_format=torch.channels_last)
        # What each pixel says about where it was: a crop, perhaps flipped left to right.
        rows, columns = images[:, 1].int(), images[:, 2].int()
        assert (rows.diff(dim=1) == 1).all()
        assert (columns.diff(dim=2).abs() == 1).all()


def test_an_epoch_is_as_long_as_the_longer_list(folders: tuple[str, str]) -> None:
    data = TrainingData(settings_for(folders, batch=1))
    assert data.samples_per_epoch == data.batches_per_epoch == 11
    batches = list(data.batches(0))
    assert sorted(numbers(batches, "source")) == list(range(11))
    counts = Counter(numbers(batches, "target"))
    assert set(counts) == set(range(100, 105))
    assert set(counts.values()) == {2, 3}
    partners = [
        list(zip(numbers(b, "source"), numbers(b, "target"), strict=True)) for b in (batches, list(data.batches(1)))
    ]
    assert partners[0] != partners[1]
    assert len(set(partners[0]) & set(partners[1])) < 8


@pytest.mark.parametrize(
    ("drop_last", "samples", "count"), [(True, 0, 2), (False, 0, 3), (True, 3, 1), (False, 50, 13)]
)
def test_every_batch_is_full(folders: tuple[str, str], drop_last: bool, samples: int, count: int) -> None:
    data = TrainingData(settings_for(folders, drop_last=drop_last, samples_per_epoch=samples))
    batches = list(data.batches(0))
    assert len(batches) == data.batches_per_epoch == count
    assert {len(batch["source"]) for batch in batches} == {4}
    if samples == 50:
        assert set(Counter(numbers(batches, "source")).values()) <= {4, 5}


@given(epoch=st.integers(0, 5), start=st.integers(0, 11), seed=st.integers(0, 3))
@hypothesis_settings(max_examples=10)
def test_a_resumed_epoch_goes_on_as_it_would_have(folders: tuple[str, str], epoch: int, start: int, seed: int) -> None:
    data = TrainingData(settings_for(folders, batch=1, rotate=True, seed=seed))
    whole = list(data.batches(epoch))
    rest = list(data.batches(epoch, start=start))
    assert len(rest) == 11 - start
    assert not rest or equal(whole[start:], rest)
    fresh = TrainingData(settings_for(folders, batch=1, rotate=True, seed=seed))
    assert not rest or equal(rest, fresh.batches(epoch, start=start))


@pytest.mark.parametrize("world", [1, 2, 4])
def test_processes_get_their_parts_of_the_same_batches(folders: tuple[str, str], world: int) -> None:
    data = TrainingData(settings_for(folders))
    whole = list(data.batches(3))
    parts = [list(data.batches(3, rank=rank, world=world)) for rank in range(world)]
    joined = [{role: torch.cat([p[i][role] for p in parts]) for role in data.roles} for i in range(len(whole))]
    assert equal(whole, joined)
    with pytest.raises(InputError, match="multiple of 3"):
        data.batches(0, rank=0, world=3)


def test_worker_processes_change_nothing(folders: tuple[str, str]) -> None:
    settings = settings_for(folders, rotate=True, cache_bytes=0)
    alone = TrainingData(replace(settings, workers=0))
    cached = TrainingData(replace(settings, cache_bytes=10**9))
    assert cached.cached
    assert not alone.cached
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with TrainingData(replace(settings, workers=2)) as data:
        next(data.batches(7))  # left in the middle: nothing of it may turn up later
        for epoch in (0, 1):
            expected = list(alone.batches(epoch))
            assert equal(expected, data.batches(epoch))
            assert equal(expected, cached.batches(epoch))
        assert equal(list(alone.batches(2))[1:], data.batches(2, start=1))
        assert torch.equal(before, torch.get_rng_state())
        assert len(multiprocessing.active_children()) >= 2
    gc.collect()
    assert not multiprocessing.active_children()


def test_epochs_and_seeds_differ(folders: tuple[str, str]) -> None:
    first, second = TrainingData(settings_for(folders)), TrainingData(settings_for(folders, seed=1))
    assert not equal(list(first.batches(0)), list(first.batches(1)))
    assert not equal(first.batches(0), second.batches(0))
    same = TrainingData(settings_for(folders))
    assert equal(first.batches(0), same.batches(0))


def test_one_iterator_at_a_time(folders: tuple[str, str]) -> None:
    data = TrainingData(settings_for(folders))
    first = data.batches(0)
    next(first)
    second = data.batches(1)
    with pytest.raises(InputError, match="last iterator"):
        next(first)
    assert len(list(second)) == 2
    with pytest.raises(InputError, match="epoch -1"):
        data.batches(-1)


def test_one_list_is_enough(folders: tuple[str, str]) -> None:
    data = TrainingData(settings_for(folders, source=()))
    assert data.roles == ("target",)
    assert set(next(data.batches(0))) == {"target"}


def test_cached_data_can_go_to_another_process(folders: tuple[str, str]) -> None:
    """Where processes do not start as copies of their parent, what they cut from is pickled."""
    data = TrainingData(settings_for(folders))
    again = pickle.loads(pickle.dumps(data._cutter))
    request = [(0, 0, (("source", 3, -1), ("target", 1, -1)))]
    assert equal([data._cutter[request]], [again[request]])


# ---- crops ------------------------------------------------------------------------------------------------------


def test_crops_lie_where_they_should(folders: tuple[str, str]) -> None:
    fixed = settings_for(folders, flip=False, crop_mode="top-left")
    for mode, corner in (("top-left", 0), ("center", 12)):
        batches = list(TrainingData(replace(fixed, crop_mode=mode)).batches(0))  # type: ignore[arg-type]
        assert {int(v) for b in batches for v in b["source"][:, 1:, 0, 0].flatten()} == {corner}
    data = TrainingData(replace(fixed, crop_mode="random", samples_per_epoch=4000, batch=400))
    corners = torch.cat([batch["source"][:, 1:, 0, 0] for batch in data.batches(0)]).numpy()
    assert corners.min() == 0
    assert corners.max() == 24
    expected = 4000 / 25
    for axis in range(2):
        counts = np.bincount(corners[:, axis], minlength=25)
        assert ((counts - expected) ** 2 / expected).sum() < 24 + 5 * np.sqrt(2 * 24)


def test_flips_are_half(folders: tuple[str, str]) -> None:
    data = TrainingData(settings_for(folders, samples_per_epoch=1000, batch=100, flip_vertical=True))
    images = torch.cat([batch["source"] for batch in data.batches(0)]).int()
    flipped = (images[:, 2, 0, 0] > images[:, 2, 0, -1]).float()
    upside = (images[:, 1, 0, 0] > images[:, 1, -1, 0]).float()
    for share in (flipped.mean(), upside.mean(), (flipped == upside).float().mean()):
        assert abs(float(share) - 0.5) < 4 * 0.5 / np.sqrt(1000)


def test_images_smaller_than_the_crop_are_mirrored_and_noted(tmp_path: Path) -> None:
    save(tmp_path, [flat(0, 24), flat(1, 40)])
    data = TrainingData(DataSettings(source=(str(tmp_path),), crop=32, batch=2, flip=False, validation_share=0))
    images = {int(n[0, 0, 0]): n for n in next(data.batches(0))["source"]}
    assert images[0].shape == (3, 32, 32)
    assert images[0][1, :, 0].tolist() == [4, 3, 2, 1, *range(24), 22, 21, 20, 19]
    assert any("1 of 2 pictures of the source are smaller than the crop of 32" in note for note in data.notes)


# ---- colours of the input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("changes", [{}, {"cache_bytes": 0, "workers": 1}])
def test_the_input_is_the_crop_with_other_colours(tmp_path: Path, paired: bool, changes: dict[str, Any]) -> None:
    for role in ("s", "t"):
        save(tmp_path / role, (make_phantom(40, 40, seed=i).image for i in range(9)))
    folders = str(tmp_path / "s"), str(tmp_path / "t")
    pairs = "names" if paired else ""
    settings = settings_for(folders, rotate=True, batch=3, samples_per_epoch=90, pairs=pairs, **changes)
    plain = TrainingData(settings)
    with TrainingData(replace(settings, input_augmentation="cagan")) as data:
        batches = list(data.batches(1))
        # Nothing else is drawn otherwise.
        assert equal(list(plain.batches(1)), [{role: b[role] for role in ("source", "target")} for b in batches])
        assert equal(batches[4:], data.batches(1, start=4))
        parts = [next(data.batches(1, rank=rank, world=3)) for rank in range(3)]
        assert equal(batches[:1], [{name: torch.cat([part[name] for part in parts]) for name in batches[0]}])
        assert set(data.validation_images(2)) == {"source", "target"}
    for role in ("source", "target"):
        clean, changed = (torch.cat([b[name] for b in batches]).float() for name in (role, f"{role}_input"))
        distances = (clean - changed).abs().mean(dim=(1, 2, 3))
        assert 0.15 < (distances == 0).float().mean() < 0.5  # no change: 0.32
        # The same tissue, lying the same way: it is more like the clean crop than like the crop in any other position.
        grays = [images.mean(dim=1).numpy() for images in (clean, changed)]
        for one, other in zip(*grays, strict=True):
            ways = [np.rot90(one[:, ::step], turns) for step in (1, -1) for turns in range(4)]
            likeness = [np.corrcoef(way.ravel(), other.ravel())[0, 1] for way in ways]
            assert np.argmax(likeness) == 0
    same = [torch.equal(b["source"] == b["source_input"], b["target"] == b["target_input"]) for b in batches]
    assert not all(same)  # each list has chances of its own


# ---- pairs ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pairs: the target is the negative of the source, three pixels further right and two further up."""
    root = tmp_path_factory.mktemp("pairs")
    rows = ["tile,slide,dy,dx"]
    for i in range(8):
        scene = make_phantom(60, 70, seed=i).image
        for role, image in (("a", scene[:50, :60]), ("b", 255 - scene[2:52, :57])):
            (root / role).mkdir(exist_ok=True)
            Image.fromarray(np.pad(image, ((0, 0), (60 - image.shape[1], 0), (0, 0)))).save(root / role / f"p{i}.png")
        rows.append(f"p{i},slide {i // 2},2,-3")
    (root / "pairs.csv").write_text("\n".join(rows) + "\n")
    return root


def test_pairs_are_cut_flipped_and_turned_together(registered: Path) -> None:
    settings = DataSettings(
        source=(str(registered / "a"),),
        target=(str(registered / "b"),),
        pairs=str(registered / "pairs.csv"),
        crop=32,
        rotate=True,
        flip_vertical=True,
        samples_per_epoch=64,
        validation_share=0.25,
    )
    data = TrainingData(settings)
    assert data.paired
    assert {picture.size for pictures in data.training.values() for picture in pictures} == {(57, 48)}
    for batch in [*data.batches(0), data.validation_images(2), *data.validation_batches()]:
        assert torch.equal(batch["source"], 255 - batch["target"])
    assert len(data.training["source"]) == len(data.training["target"]) == 6
    assert len(data.validation["source"]) == len(data.validation["target"]) == 2
    assert len({picture.group for picture in data.validation["source"]}) == 1


def test_pairs_by_name(registered: Path, tmp_path: Path) -> None:
    one = save(tmp_path / "one", (flat(i) for i in range(16)))
    save(tmp_path / "two", (flat(100 + i) for i in range(15)))
    data = TrainingData(
        DataSettings(source=one, target=tmp_path / "two", pairs="names", crop=16, batch=1, validation_share=0.4)
    )
    assert any("1 images have no partner" in note and "015.png" in note for note in data.notes)
    batches = [*data.batches(0), *data.validation_batches(1)]
    assert sorted(numbers(batches, "source")) == list(range(15))
    for batch in batches:
        assert (batch["target"][:, 0] == batch["source"][:, 0] + 100).all()
        assert torch.equal(batch["target"][:, 1:], batch["source"][:, 1:])


def test_pairs_named_for_validation(registered: Path) -> None:
    lines = (registered / "pairs.csv").read_text().splitlines()
    for name, rows in (("train.csv", lines[1:5]), ("held.csv", lines[5:]), ("leak.csv", lines[4:5])):
        (registered / name).write_text("\n".join([lines[0], *rows]) + "\n")
    folders = {"source": registered / "a", "target": registered / "b", "crop": 16}
    data = TrainingData(
        DataSettings(**folders, pairs=registered / "train.csv", validation_pairs=registered / "held.csv")
    )
    assert {p.name for p in data.training["target"]} == {"p0", "p1", "p2", "p3"}
    assert {p.name for p in data.validation["target"]} == {"p4", "p5", "p6", "p7"}
    # All of a slide but one: the rest of it would be trained on.
    settings = DataSettings(**folders, pairs=registered / "pairs.csv", validation_pairs=registered / "leak.csv")
    with pytest.raises(InputError, match="slide 1 is among the source to train on and among that for validation"):
        TrainingData(settings)


# ---- blank crops ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_the_share_of_blank_crops_is_controlled(tmp_path: Path, share: float) -> None:
    save(tmp_path, (make_phantom(200, 240, seed=i, glass_fraction=0.5, scanner=SCANNER).image for i in range(6)))
    settings = DataSettings(
        source=(str(tmp_path),), crop=48, batch=50, samples_per_epoch=500, validation_share=0, blank_share=share
    )
    data = TrainingData(settings)
    white = (243.0, 243.0, 243.0)
    crops = torch.cat([batch["source"] for batch in data.batches(0)]).permute(0, 2, 3, 1).numpy()
    stained = np.array([stained_blocks(crop, white).mean() for crop in crops])
    # Blocks of a crop are not quite those of its picture, so that crops near the limit may fall on either side.
    assert abs(int((stained < STAINED_SHARE).sum()) - 500 * share) <= 20
    assert (stained < 0.01).sum() >= 500 * share * 0.8
    free = TrainingData(replace(settings, blank_share=None))
    crops = torch.cat([batch["source"] for batch in free.batches(0)]).permute(0, 2, 3, 1).numpy()
    assert np.mean([stained_blocks(crop, white).mean() < STAINED_SHARE for crop in crops]) > 0.1


def test_a_share_that_cannot_be_met_is_an_error(tmp_path: Path) -> None:
    save(tmp_path / "tissue", (make_phantom(64, 64, seed=i, glass_fraction=0).image for i in range(3)))
    settings = DataSettings(source=(str(tmp_path / "tissue"),), crop=64, validation_share=0, blank_share=0.1)
    with pytest.raises(InputError, match="no picture of the source has a blank place of 64 pixels"):
        TrainingData(settings)


# ---- the split --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six slides by two scanners, seven tiles each."""
    root = tmp_path_factory.mktemp("scanned")
    for role in ("aperio", "hamamatsu"):
        for slide in range(6):
            save(root / role, (flat(10 * slide + i, 24) for i in range(7)), f"S{slide}_{role[0]}" + "{}.png")
    return root


@given(seed=st.integers(0, 100), share=st.sampled_from([0.05, 0.2, 0.5]))
@hypothesis_settings(max_examples=12)
def test_no_slide_is_in_both_parts_of_either_scanner(scanned: Path, seed: int, share: float) -> None:
    data = TrainingData(
        DataSettings(
            source=(str(scanned / "aperio"),),
            target=(str(scanned / "hamamatsu"),),
            crop=16,
            group_pattern=r"/S(\d)_",
            validation_share=share,
            seed=seed,
        )
    )
    parts = [
        {picture.path.name[1] for pictures in part.values() for picture in pictures}
        for part in (data.training, data.validation)
    ]
    assert parts[0]
    assert parts[1]
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == set("012345")
    assert len(data.validation["source"]) == len(data.validation["target"]) == 7 * max(1, round(6 * share))


def test_the_split_does_not_depend_on_where_and_in_what_order_files_are(scanned: Path, tmp_path: Path) -> None:
    folder = scanned / "aperio"
    files = sorted(folder.iterdir())
    (tmp_path / "copy").mkdir()
    for path in reversed(files):
        (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())

    def held(source: Any, **changes: Any) -> set[str]:
        data = TrainingData(DataSettings(source=source, crop=16, **changes))
        return {picture.path.name for picture in data.validation["source"]}

    expected = held(folder)
    assert len(expected) == 4
    assert held(tmp_path / "copy") == expected
    assert held([str(path) for path in reversed(files)]) == expected
    assert held(f"{folder}/*.png") == expected
    assert held(folder, seed=1) != expected


def test_files_named_for_validation(folders: tuple[str, str], tmp_path: Path) -> None:
    """A folder within a folder is taken out of it; the other list is split as ever."""
    root = save(tmp_path / "all", (flat(i) for i in range(10)))
    save(root / "held", (flat(50 + i) for i in range(3)))
    data = TrainingData(
        settings_for(folders, source=root, validation_source=root / "held", batch=1, validation_share=0.2)
    )
    assert sorted(numbers(data.batches(0), "source")) == list(range(10))
    assert sorted(numbers(data.validation_batches(), "source")) == [50, 51, 52]
    assert len(data.validation["target"]) == 1
    with pytest.raises(InputError, match="every file of the source is kept for validation"):
        TrainingData(settings_for(folders, source=root / "held", validation_source=root / "held"))
    with pytest.raises(InputError, match="all is among the source to train on"):
        TrainingData(
            settings_for(folders, source=root, validation_source=root / "held", group_pattern="/(all)/", batch=1)
        )


def test_same_names_in_several_folders_are_kept_apart(tmp_path: Path) -> None:
    for slide in range(4):
        save(tmp_path / f"S{slide}", (flat(10 * slide + i) for i in range(3)))
    folders = [str(tmp_path / f"S{slide}") for slide in range(4)]
    data = TrainingData(DataSettings(source=folders, crop=16, validation_share=0.25))
    names = [picture.name for part in (data.training, data.validation) for picture in part["source"]]
    assert len(set(names)) == 12
    assert "S2/001" in names
    assert len(data.validation["source"]) == 3


def test_one_slide_is_split_by_tiles_and_one_image_not_at_all(tmp_path: Path) -> None:
    write_array(tmp_path / "s.tif", make_phantom(512, 512, seed=1).image, settings=PyramidSettings(tile=64))
    data = TrainingData(DataSettings(target=tmp_path / "s.tif", crop=64, slide_tiles=20, batch=2))
    assert any("one slide" in note for note in data.notes)
    places = [{picture.location for picture in part["target"]} for part in (data.training, data.validation)]
    assert len(places[1]) == 2
    assert not places[0] & places[1]
    save(tmp_path, [flat(7)])
    data = TrainingData(DataSettings(target=tmp_path / "000.png", crop=16, batch=2))
    assert any("one picture" in note for note in data.notes)
    assert not data.validation["target"]
    assert not list(data.validation_batches())
    assert len(data.validation_images(3)["target"]) == 1
    assert len(list(data.batches(0))) == 1
    save(tmp_path / "more", (flat(i) for i in range(3)))
    with pytest.raises(InputError, match=r"all 3 pictures of the target belong to one slide or patient \(more\)"):
        TrainingData(DataSettings(target=tmp_path / "more", crop=16, group_pattern=r"/(more)/"))


def test_a_part_much_larger_than_its_share_is_noted(scanned: Path) -> None:
    data = TrainingData(DataSettings(source=f"{scanned}/aperio/S[01]*", crop=16, group_pattern=r"/S(\d)_"))
    assert any("7 of 14 pictures of the source are kept for validation" in note for note in data.notes)


# ---- validation -------------------------------------------------------------------------------------------------


def test_validation_is_always_the_same(folders: tuple[str, str]) -> None:
    settings = settings_for(folders, validation_share=0.4)
    data = TrainingData(settings)
    first = data.validation_images(3)
    assert {role: tuple(images.shape) for role, images in first.items()} == {
        "source": (3, 3, 16, 16),
        "target": (2, 3, 16, 16),
    }
    assert {int(v) for images in first.values() for v in images[:, 1:, 0, 0].flatten()} == {12}
    list(data.batches(0))
    other = TrainingData(replace(settings, cache_bytes=0, workers=0))
    assert equal([first], [data.validation_images(3)])
    assert equal([first], [other.validation_images(3)])
    batches = list(data.validation_batches(3))
    assert [len(batch["source"]) for batch in batches] == [len(batch["target"]) for batch in batches] == [3, 1]
    seen = numbers(batches, "source")
    assert len(set(seen)) == 4
    assert numbers(batches, "target") == numbers(batches, "target")[:2] * 2
    assert numbers(data.validation_batches(most=2), "source") == seen[:2]
    assert not set(seen) & set(numbers(data.batches(0), "source"))


def test_validation_pictures_are_mixed(scanned: Path) -> None:
    """The first of them are not all of one slide."""
    data = TrainingData(
        DataSettings(source=scanned / "aperio", crop=16, group_pattern=r"/S(\d)_", validation_share=0.5)
    )
    names = [picture.name for picture in data.validation["source"]]
    assert len({picture.group for picture in data.validation["source"][:7]}) >= 2
    assert names != sorted(names)


def test_without_validation_pictures_of_the_training_are_shown(folders: tuple[str, str]) -> None:
    data = TrainingData(settings_for(folders))
    assert not list(data.validation_batches())
    assert len(data.validation_images(4)["source"]) == 4


# ---- files ------------------------------------------------------------------------------------------------------


def test_bad_files_are_left_out_and_counted(tmp_path: Path) -> None:
    save(tmp_path, (flat(i) for i in range(5)))
    (tmp_path / "002.png").write_bytes((tmp_path / "002.png").read_bytes()[:80])
    (tmp_path / "empty.tif").touch()
    (tmp_path / "readme.txt").write_text("not an image")
    (tmp_path / ".hidden.png").write_text("not an image either")
    settings = DataSettings(source=tmp_path, crop=16, batch=1, validation_share=0)
    seen: list[tuple[int, int]] = []
    data = TrainingData(settings, progress=lambda done, of: seen.append((done, of)))
    assert sorted(numbers(data.batches(0), "source")) == [0, 1, 3, 4]
    assert [failure.source.name for failure in data.failures] == ["002.png", "empty.tif"]
    assert all(failure.source.name in failure.error for failure in data.failures)
    assert any("2 of 6 files were left out" in note and "002.png" in note for note in data.notes)
    assert seen == [(i, 6) for i in range(1, 7)]
    assert data.summary()["files_left_out"] == 2
    with pytest.raises(SlideError, match=r"002\.png"):
        TrainingData(replace(settings, skip_bad=False))
    for path in tmp_path.glob("0*.png"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"none of 6 files of the source can be used for training.*000\.png is empty"):
        TrainingData(settings)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_breaks_while_training_is_named_in_one_line(tmp_path: Path, workers: int) -> None:
    save(tmp_path, (flat(i) for i in range(4)))
    settings = DataSettings(source=tmp_path, crop=16, batch=1, validation_share=0, cache_bytes=0, workers=workers)
    with TrainingData(settings) as data:
        (tmp_path / "001.png").unlink()
        with pytest.raises(SlideError, match=r"001\.png could be read before") as caught:
            list(data.batches(0))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": (), "target": ()}, "nothing to train on"),
        ({"source": "nowhere/*.png"}, "nowhere/.* names no file"),
        ({"batch": 0}, "batch = 0"),
        ({"crop": 8}, "crop = 8"),
        ({"crop": 64.0}, "crop = 64.0"),
        ({"flip": "yes"}, "flip = 'yes'"),
        ({"validation_share": 1.0}, "validation_share = 1.0"),
        ({"validation_share": "0.1"}, "wanted a number"),
        ({"blank_share": 1.5}, "blank_share = 1.5"),
        ({"blank_share": 0.1, "crop_mode": "center"}, "crop_mode"),
        ({"crop_mode": "middle"}, "crop_mode = 'middle'"),
        ({"input_augmentation": "gray"}, "input_augmentation = 'gray'; wanted none or cagan"),
        ({"labels": 3}, "wanted a path"),
        ({"content_pairs": -1}, "content_pairs = -1"),
        ({"content_pairs": 3, "blank_share": 0.1}, "leave one out"),
        ({"mpp": 0.0}, "mpp = 0"),
        ({"slide_tile": 8}, "slide_tile = 8"),
        ({"group_pattern": "("}, "no regular expression"),
        ({"group_pattern": "S\\d"}, "has no group"),
        ({"source": 3}, "wanted paths"),
        ({"pairs": None}, "wanted a path"),
        ({"validation_pairs": "x.csv"}, "validation_pairs without pairs"),
        ({"pairs": "x.csv", "validation_source": "y"}, "need validation_pairs"),
        ({"pairs": "names", "source": ("a", "b")}, "one source and one target"),
        ({"source": (), "validation_source": "y"}, "validation_source without source"),
    ],
)
def test_settings_that_cannot_be_are_refused(folders: tuple[str, str], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainingData(settings_for(folders, **changes))


def test_settings_are_plain(folders: tuple[str, str]) -> None:
    settings = settings_for(folders, source=[Path(folders[0])])
    assert DataSettings(**json.loads(json.dumps(asdict(settings)))) == settings


def test_the_digest_names_the_data(folders: tuple[str, str]) -> None:
    digests = {
        TrainingData(settings_for(folders, **changes)).digest
        for changes in ({}, {"seed": 1, "validation_share": 0.2}, {"validation_share": 0.2}, {"target": ()})
    }
    assert len(digests) == 4
    assert TrainingData(settings_for(folders, batch=2, flip=False)).digest in digests


def test_the_digest_names_the_pixels(tmp_path: Path) -> None:
    """Of a large file, which is not read whole, as well; and of a copy it is the same."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    save(tmp_path / "a", [noise, flat(1)])
    assert (tmp_path / "a" / "000.png").stat().st_size > 3 * 65_536
    (tmp_path / "b").mkdir()
    for path in sorted((tmp_path / "a").iterdir(), reverse=True):
        (tmp_path / "b" / path.name).write_bytes(path.read_bytes())

    def digest(folder: str) -> str:
        return TrainingData(DataSettings(source=tmp_path / folder, crop=16, validation_share=0)).digest

    assert digest("a") == digest("b")
    noise[150, 150, 0] ^= 1
    save(tmp_path / "b", [noise])
    assert digest("a") != digest("b")


# ---- slides -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("slides")
    for i, white in enumerate([(243.0, 243.0, 243.0), (236.0, 231.0, 228.0), (243.0, 243.0, 243.0)]):
        tissue = make_phantom(512, 576, seed=20 + i, glass_fraction=0.5, scanner=Scanner(white=white, noise=1.0))
        write_array(root / f"{i}.tif", tissue.image, settings=PyramidSettings(tile=128), mpp=(0.25, 0.25))
    return root


@pytest.mark.parametrize("mpp", [None, 0.5])
def test_slides_in_processes_and_alone(slides: Path, mpp: float | None) -> None:
    settings = DataSettings(target=slides, crop=48, slide_tile=64, slide_tiles=12, batch=6, mpp=mpp, cache_bytes=0)
    alone = TrainingData(replace(settings, workers=0))
    assert {len(part["target"]) for part in (alone.training, alone.validation)} == {24, 12}
    assert len({picture.path for picture in alone.validation["target"]}) == 1
    cached = TrainingData(replace(settings, cache_bytes=10**9))
    assert cached.cached
    with TrainingData(replace(settings, workers=2)) as data:
        for epoch in range(2):
            expected = list(alone.batches(epoch))
            assert equal(expected, data.batches(epoch))
            if mpp is None:
                assert equal(expected, cached.batches(epoch))
    assert equal(alone.validation_batches(), cached.validation_batches()) or mpp is not None


def test_slides_give_the_wanted_share_of_glass(slides: Path) -> None:
    settings = DataSettings(source=slides, crop=64, slide_tiles=20, batch=20, blank_share=0.25, samples_per_epoch=200)
    data = TrainingData(settings)
    crops = torch.cat([batch["source"] for batch in data.batches(0)]).permute(0, 2, 3, 1).numpy()
    # Here a crop is a tile, perhaps flipped: the same blocks. One scanner's white is a little darker than this.
    blank = [stained_blocks(crop, (241.0, 239.0, 238.0)).mean() < STAINED_SHARE for crop in crops]
    assert sum(blank) == pytest.approx(50, abs=3)


def test_a_histogram_has_the_glass_of_the_scanner(slides: Path, folders: tuple[str, str]) -> None:
    data = TrainingData(DataSettings(target=slides / "1.tif", crop=64, slide_tiles=10))
    white = find_white_point(data.histogram("target"))
    assert white.origin == "glass"
    assert np.abs(white.level - (236, 231, 228)).max() < 1.5
    with pytest.raises(InputError, match="no source"):
        data.histogram("source")
    assert data.summary()["target_training"] == {"pictures": 9, "groups": 9, "files": 1}


def test_errors_are_restains_own() -> None:
    assert issubclass(InputError, RestainError)
