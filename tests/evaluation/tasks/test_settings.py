"""Settings: the papers' protocols as PAPERS §8 has them, and what is refused."""

import json

import pytest

from restain.errors import InputError

pytest.importorskip("torch")

from restain.evaluation.tasks.settings import (
    PROTOCOLS,
    ClassifierSettings,
    SegmenterSettings,
    settings_from,
)

WANTED = {
    "resnet50": {
        **{"network": "resnet50", "weights": "imagenet", "side": 256, "learning_rate": 1e-4, "weight_decay": 0.0},
        **{"batch_size": 32, "epochs": 50, "milestones": (), "flips": True, "turns": True, "augmentation": "none"},
    },
    "resnet50_512": {
        "network": "resnet50",
        "weights": "imagenet",
        "side": 512,
        "balanced": True,
        "augmentation": "none",
    },
    "squeezenet": {
        **{"network": "squeezenet1_1", "weights": "imagenet", "scaling": "128", "learning_rate": 2e-4},
        **{"weight_decay": 1e-5, "milestones": (40, 50), "epochs": 60, "batch_size": 64},
        **{"flips": False, "turns": False, "augmentation": "none"},
    },
    "unet": {
        **{"network": "unet", "width": 64, "weights": "scratch", "learning_rate": 1e-3, "batch_size": 8},
        **{"epochs": 100, "threshold": 0.5, "augmentation": "none"},
    },
    "fcn": {"network": "fcn_resnet50", "weights": "imagenet", "scaling": "imagenet"},
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_are_the_papers(name: str) -> None:
    assert {key: getattr(PROTOCOLS[name], key) for key in WANTED[name]} == WANTED[name]


def test_the_fcn_is_trained_with_other_colours_and_the_others_are_not() -> None:
    assert {name for name, settings in PROTOCOLS.items() if settings.augmentation != "none"} == {"fcn"}


@pytest.mark.parametrize("settings", PROTOCOLS.values(), ids=PROTOCOLS)
def test_settings_travel_as_json(settings) -> None:
    told = json.loads(json.dumps(settings.plain()))
    assert settings_from(type(settings), told) == settings


def test_no_file_names_travel() -> None:
    settings = ClassifierSettings(weights="/home/me/secret.pth")
    assert settings.plain() == {**ClassifierSettings().plain(), "weights": "file"}
    assert settings_from(ClassifierSettings, settings.plain()).pretrained


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (ClassifierSettings, {"network": "unet"}, "resnet50, squeezenet1_1"),
        (SegmenterSettings, {"network": "resnet50"}, "unet, fcn_resnet50"),
        (ClassifierSettings, {"width": 0}, "width=0"),
        (ClassifierSettings, {"width": 10**6}, "at most 1024"),
        (ClassifierSettings, {"side": 8}, "side=8"),
        (ClassifierSettings, {"epochs": 1.5}, "whole number"),
        (ClassifierSettings, {"batch_size": True}, "whole number"),
        (ClassifierSettings, {"learning_rate": 0.0}, "above 0"),
        (ClassifierSettings, {"learning_rate": float("nan")}, "above 0"),
        (ClassifierSettings, {"weight_decay": -1.0}, "0 or more"),
        (ClassifierSettings, {"scaling": "none"}, "imagenet, 128, unit"),
        (ClassifierSettings, {"augmentation": "sepia"}, "none, gray"),
        (SegmenterSettings, {"threshold": 1.0}, "between 0 and 1"),
        (SegmenterSettings, {"weights": "imagenet"}, "nobody published"),
    ],
)
def test_settings_that_cannot_be_are_refused(kind, values: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        kind(**values)


@pytest.mark.parametrize("values", [{"hue": 1}, {"width": "64"}, {"learning_rate": "fast"}])
def test_settings_from_a_file_that_cannot_be_are_refused(values: dict) -> None:
    with pytest.raises(InputError):
        settings_from(ClassifierSettings, values)
