"""What the target's images show: found by folder or csv, in every batch, and asked for by systems that learn."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import restain
from restain.errors import InputError
from restain.systems.stainnet import StainNetConfig, StainNetStudent
from restain.training.data import DataSettings, TrainingData
from restain.training.loop import train
from restain.training.settings import Recipe, make_recipe, merged

from .small import assert_same_run, lines_of

CLASSES = ("debris", "gland", "stroma")


def write(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((24, 24, 3), level, np.uint8)).save(path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve targets whose level says their class: 10·class + number; five sources."""
    root = tmp_path_factory.mktemp("labelled")
    for i in range(12):
        write(root / "t" / "lab" / CLASSES[i % 3] / f"{i}.png", 10 * (i % 3) + i // 3)
    for i in range(5):
        write(root / "s" / f"{i}.png", 200 + i)
    return root


def settings_for(folders: Path, **changes: Any) -> DataSettings:
    values: dict[str, Any] = {"source": folders / "s", "target": folders / "t", "crop": 16, "batch": 4, "workers": 0}
    return DataSettings(**(values | {"labels": "folders", "validation_share": 0.0} | changes))


def table(path: Path, rows: list[str]) -> Path:
    path.write_text("\n".join(["image,label,note", *rows]) + "\n")
    return path


def true_labels(batch: Mapping[str, Tensor]) -> list[int]:
    return (batch["target"][:, 0, 0, 0] // 10).tolist()


# ---- in batches -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"source": ()}, {"cache_bytes": 0, "workers": 1}])
def test_labels_go_with_their_images(folders: Path, changes: dict[str, Any]) -> None:
    with TrainingData(settings_for(folders, validation_share=0.3, **changes)) as data:
        assert data.classes == CLASSES
        assert data.summary()["classes"] == list(CLASSES)
        batches = [*data.batches(0), *data.batches(1), *data.validation_batches(3)]
        assert len(batches) > 5
        for batch in batches:
            assert batch["target_label"].dtype == torch.int64
            assert batch["target_label"].tolist() == true_labels(batch)
        assert "target_label" not in data.validation_images(2)


def test_processes_share_labels_as_they_share_images(folders: Path) -> None:
    data = TrainingData(settings_for(folders))
    whole = next(data.batches(2))["target_label"]
    parts = [next(data.batches(2, rank=rank, world=2))["target_label"] for rank in range(2)]
    assert torch.equal(torch.cat(parts), whole)


def test_labels_change_no_image(folders: Path) -> None:
    with_labels, without = TrainingData(settings_for(folders)), TrainingData(settings_for(folders, labels=""))
    for one, other in zip(with_labels.batches(0), without.batches(0), strict=True):
        assert set(one) - set(other) == {"target_label"}
        assert all(torch.equal(one[role], other[role]) for role in other)
    assert with_labels.digest != without.digest
    assert without.classes == ()


def test_pairs_have_labels(folders: Path) -> None:
    """The target's: what the source's folders are called is of no interest."""
    target = folders / "t" / "lab"
    data = TrainingData(settings_for(folders, source=target, target=target, pairs="names"))
    for batch in data.batches(0):
        assert batch["target_label"].tolist() == true_labels(batch)


# ---- from a csv -------------------------------------------------------------------------------------------------


def test_a_table_names_images_in_several_ways(folders: Path, tmp_path: Path) -> None:
    rows = []
    for i in range(12):
        name = f"lab/{CLASSES[i % 3]}/{i}"
        way = (f"{name}.png", name, str(folders / "t" / f"{name}.png"))[i // 4]
        rows.append(f'"{way}", {CLASSES[i % 3]}')
    data = TrainingData(settings_for(folders, labels=table(tmp_path / "labels.csv", rows)))
    assert data.classes == CLASSES
    assert not any("label" in note for note in data.notes)
    for batch in data.batches(0):
        assert batch["target_label"].tolist() == true_labels(batch)
    beside = table(folders / "t" / "lab" / "labels.csv", [f"{CLASSES[i % 3]}/{i}.png,{i % 3}" for i in range(12)])
    data = TrainingData(settings_for(folders, labels=beside))
    assert data.classes == ("0", "1", "2")
    assert next(data.batches(0))["target_label"].tolist() == true_labels(next(data.batches(0)))


def test_images_without_a_label_are_noted(folders: Path, tmp_path: Path) -> None:
    rows = [f"lab/{CLASSES[i % 3]}/{i},{CLASSES[i % 3] if i != 4 else ''}" for i in range(11)]
    data = TrainingData(settings_for(folders, labels=table(tmp_path / "labels.csv", rows)))
    assert any("2 of 12 images of the target have no label, such as " in note for note in data.notes)
    images = {int(b["target"][i, 0, 0, 0]): int(b["target_label"][i]) for b in data.batches(0) for i in range(4)}
    assert images == {10 * c + n: -1 if 3 * n + c in (4, 11) else c for c in range(3) for n in range(4)}


def test_classes_do_not_depend_on_the_split(folders: Path, tmp_path: Path) -> None:
    rows = [f"lab/{CLASSES[i % 3]}/{i},{'odd' if i == 5 else 'usual'}" for i in range(12)]
    labels = table(tmp_path / "labels.csv", rows)
    for seed in range(8):
        data = TrainingData(settings_for(folders, labels=labels, validation_share=0.4, seed=seed))
        assert data.classes == ("odd", "usual")
        held = any(picture.name.endswith("/5") for picture in data.validation["target"])
        assert held == any("that is trained on is of the class odd" in note for note in data.notes)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["elsewhere,gland"], "none of the 12 images of the target has a label"),
        (["lab/gland/1,gland", "lab/gland/4,gland"], "all images of the target are gland; wanted two"),
        (["lab/gland/1,gland", "lab/gland/1,stroma"], "line 3: lab/gland/1 is stroma here and gland before"),
        ([" ,gland"], "line 2: the image is missing"),
    ],
)
def test_tables_that_cannot_be_are_refused(folders: Path, tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        TrainingData(settings_for(folders, labels=table(tmp_path / "labels.csv", rows)))
    assert "labels.csv" in str(caught.value)


def test_labels_that_are_no_table_are_refused(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.csv cannot be read as a csv of labels .* or folders"):
        TrainingData(settings_for(folders, labels="nowhere.csv"))
    (tmp_path / "other.csv").write_text("file,class\na,b\n")
    with pytest.raises(InputError, match="has the columns file, class; wanted image and label"):
        TrainingData(settings_for(folders, labels=tmp_path / "other.csv"))
    with pytest.raises(InputError, match="by their folders, all images of the target are gland"):
        TrainingData(settings_for(folders, target=folders / "t" / "lab" / "gland"))
    with pytest.raises(InputError, match="labels without target"):
        settings_for(folders, target=())


# ---- in a training ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LabelledConfig(StainNetConfig):
    task_classes: int = 3


class Labelled(StainNetStudent):
    """Learns nothing from labels, but sees that they come."""

    name = "labelled"
    config_type = LabelledConfig
    labelled = True
    paired = False

    def update(self, batch: Mapping[str, Tensor], engine: Any) -> dict[str, Tensor]:
        assert batch["target_label"].dtype == torch.int64
        return super().update(batch, engine) | {"labels": batch["target_label"].double().mean()}


@pytest.fixture
def labelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restain.training.settings.SYSTEMS", {"labelled": Labelled})
    monkeypatch.setattr("restain.training.loop.SYSTEMS", {"labelled": Labelled})


def recipe_with(folders: Path, **tables: Any) -> Recipe:
    values = {
        "system": "labelled",
        "data": {"source": [str(folders / "s")], "target": [str(folders / "t")], "labels": "folders", "workers": 0},
        "config": {"crop": 16, "batch_size": 2, "channels": 4, "epochs": 3},
        "training": {"log_every": 1, "validate_every": 4, "checkpoint_every": 3, "pictures": 2},
    }
    return make_recipe(merged(values, tables))


@pytest.mark.usefixtures("quick", "labelled")
def test_a_training_with_labels_can_be_resumed(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_with(folders, training={"max_steps": 7})
    train(recipe, tmp_path / "whole", quiet=True)
    update, calls = Labelled.update, iter(range(5))
    with monkeypatch.context() as patch:
        patch.setattr(Labelled, "update", lambda *given: (next(calls), update(*given))[1])
        with pytest.raises(StopIteration):
            train(recipe, tmp_path / "part", quiet=True)
    train(recipe, tmp_path / "part", resume=True, quiet=True)
    assert_same_run(tmp_path / "whole", tmp_path / "part")
    assert len({line["losses"]["labels"] for line in lines_of(tmp_path / "whole")}) > 1
    assert restain.load(tmp_path / "part").provenance_["training"]["classes"] == list(CLASSES)


@pytest.mark.usefixtures("quick", "labelled")
@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"data": {"labels": ""}}, "labelled with these settings learns from labels of the target; say with --labels"),
        (
            {"config": {"task_classes": 2}},
            r"the target has 3 classes \(debris, gland, stroma\), and task_classes is 2; give --set config",
        ),
    ],
)
def test_labels_that_a_system_needs_are_asked_for(
    folders: Path, tmp_path: Path, tables: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train(recipe_with(folders, **tables), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
