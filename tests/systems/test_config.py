"""Settings: every mistake is named, every setting is explained, and ranges are kept before anything is made."""

import ast
import inspect
import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from restain.errors import InputError  # noqa: E402  (after the skip)
from restain.systems import SYSTEMS  # noqa: E402
from restain.systems.config import SystemConfig, check_ranges, make_settings, plain  # noqa: E402

from .small import CONFIGS  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One setting of every type that there is."""

    whole: int = 3
    real: float = 0.5
    switch: bool = False
    word: str = "a"
    choice: Literal["one", "two"] = "one"
    step: Literal[0, 1] = 0
    maybe: int | None = None
    either: float | str = 1.0
    sides: tuple[int, ...] = (1,)
    pair: tuple[float, str] = (1.0, "b")
    folder: Path = Path("here")
    folders: tuple[Path, ...] = ()
    anything: Any = None


@dataclass(frozen=True, kw_only=True)
class Needy:
    """A setting without a default."""

    name: str
    size: int = 1


def sample(**values: Any) -> Sample:
    return make_settings(Sample, values, "the sample")


# ---- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("whole", 7, 7),
        ("real", 2, 2.0),
        ("real", 1.5, 1.5),
        ("switch", True, True),
        ("choice", "two", "two"),
        ("step", 1, 1),
        ("maybe", None, None),
        ("maybe", 4, 4),
        ("either", 3, 3.0),
        ("either", "text", "text"),
        ("sides", [3, 1], (3, 1)),
        ("sides", (3, 1), (3, 1)),
        ("sides", [], ()),
        ("pair", [2, "c"], (2.0, "c")),
        ("folder", "there", Path("there")),
        ("folder", Path("there"), Path("there")),
        ("folders", ["a", "b"], (Path("a"), Path("b"))),
        ("anything", {"a": [1]}, {"a": [1]}),
    ],
)
def test_values_become_their_type(name: str, value: Any, wanted: Any) -> None:
    found = getattr(sample(**{name: value}), name)
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("whole", 1.0),
        ("whole", "1"),
        ("whole", True),
        ("whole", None),
        ("real", "0.5"),
        ("real", True),
        ("real", 10**400),
        ("switch", 1),
        ("switch", 0),
        ("switch", "yes"),
        ("word", 1),
        ("word", Path("a")),
        ("choice", "three"),
        ("choice", "ONE"),
        ("choice", None),
        ("choice", ["one"]),
        ("choice", {}),
        ("step", 2),
        ("step", True),
        ("step", 0.0),
        ("maybe", "4"),
        ("maybe", True),
        ("either", None),
        ("sides", 3),
        ("sides", "31"),
        ("sides", [1, "3"]),
        ("sides", [1, True]),
        ("sides", {1: 1}),
        ("pair", [1.0]),
        ("pair", [1.0, "a", "b"]),
        ("pair", ["a", 1.0]),
        ("folder", 3),
        ("folders", "a"),
    ],
)
def test_values_of_another_type_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"^the sample: {name} ") as caught:
        sample(**{name: value})
    assert "\n" not in str(caught.value)
    assert "wanted" in str(caught.value)


def test_choices_are_listed() -> None:
    with pytest.raises(InputError, match="choice is 'three'; wanted one of one, two"):
        sample(choice="three")


def test_unknown_names_are_told_with_those_there_are() -> None:
    with pytest.raises(InputError, match="the sample: there is no setting hole, mord; there are whole, real, switch"):
        sample(mord=1, hole=2)


def test_what_must_be_given() -> None:
    with pytest.raises(InputError, match="the thing: name must be given"):
        make_settings(Needy, {"size": 2}, "the thing")
    assert make_settings(Needy, {"name": "x"}, "the thing") == Needy(name="x")


def test_no_values_are_the_defaults() -> None:
    assert sample() == Sample()


@given(
    whole=st.integers(),
    real=st.floats(allow_nan=False),
    sides=st.lists(st.integers(), max_size=4),
    word=st.text(),
    folder=st.text("abc/.", min_size=1),
)
def test_plain_values_make_the_same_settings(whole: int, real: float, sides: list[int], word: str, folder: str) -> None:
    made = sample(whole=whole, real=real, sides=sides, word=word, folder=folder)
    there_and_back = json.loads(json.dumps(plain(made)))
    assert make_settings(Sample, there_and_back, "again") == made


# ---- ranges ------------------------------------------------------------------------------------------------------


def test_ranges_include_their_ends() -> None:
    check_ranges(sample(whole=3, real=0.5), whole=(3, 3), real=(0, math.inf))
    with pytest.raises(InputError, match="got whole = 3; wanted 4 to 9"):
        check_ranges(sample(), whole=(4, 9))
    with pytest.raises(InputError, match=r"got real = 0.5; wanted 1 or more"):
        check_ranges(sample(), whole=(0, 9), real=(1, math.inf))
    with pytest.raises(InputError, match="got real = nan"):
        check_ranges(sample(real=math.nan), real=(-math.inf, math.inf))


COMMON = {
    "epochs": [0, -1],
    "decay_epochs": [-1],
    "learning_rate": [0.0, -1e-4, math.nan, math.inf],
    "batch_size": [0],
    "crop": [0, -256, 10**9],
    "schedule": ["step"],
    "crop_position": ["middle"],
}
OWN = {
    "staingan": {
        "channels": [0, -4, 10**9],
        "blocks": [-1, 10**9],
        "discriminator_channels": [0, 10**9],
        "discriminator_layers": [0, 10**9],
        "pool_size": [-1],
        "lambda_source": [-1.0, math.nan, math.inf],
        "lambda_target": [-1.0, math.nan],
        "lambda_identity": [-0.5, math.inf],
        "beta1": [-0.1, 1.0, math.nan],
        "beta2": [1.0],
        "adversarial": ["hinge"],
    },
    "stainnet": {"channels": [0, 10**9], "optimizer": ["lion"]},
    "stst": {
        "channels": [0, 10**9],
        "lambda_l1": [-1.0, math.nan],
        "beta1": [1.0],
        "beta2": [-0.5],
        "inference": ["train"],
        "inference_seed": [-1, 10**30],
    },
    "chen": {
        "epochs": [-1, 7],  # 0 is the sum of the stages
        "crop": [0, 64, 192 + 32, 10**9],
        **{f"{stage}_epochs": [-1, math.nan] for stage in ("task", "stage1", "stage2", "stage3")},
        "channels": [0, 10**9],
        "discriminator_channels": [0, 10**9],
        "mask_delta": [-1.0, 255.0, math.nan],
        **{f"lambda_{name}": [-1.0, math.nan, math.inf] for name in ("gan1", "gan2", "l1", "task")},
        "task": ["vgg16"],
        "task_weights": ["weights.pth"],  # of no task network
        "task_classes": [1, 10**9],
        "task_width": [0, 10**9],
        "task_normalization": ["caffe"],
        "task_learning_rate": [0.0, -1e-4, math.nan, math.inf],
        "beta1": [-0.1, 1.0],
        "beta2": [1.0],
    },
    "dstgan": {
        "crop": [0, 16, 24, 40, 10**9],
        "channels": [0, 7, 10**9],
        "merges": [2, 9],
        "attention_window": [1, 3, 10**9],
        "depths": [0, 10**9],
        "heads": [(), (1, 2), (0, 1, 1), (1, 1, 5)],
        "mlp_ratio": [0, 10**9],
        "first_merge": ["none"],
        "output_skip": [""],
        "input_augmentation": ["stst"],
        "discriminator_channels": [0, 10**9],
        "omegas": [(), (0.5, 0.5), (0.1, 0.2, 0.3), (-0.5, 0.5, 1.0), (math.nan, 0.5, 0.5)],
        "content_weights": [(1.0,), (0.1, 0.2, 0.3, -0.1), (0.1, 0.2, 0.3, math.inf)],
        **{f"{name}_{key}": ["other"] for name, key in (("content", "norm"), ("ssim", "mode"), ("ts", "weight"))},
        "hist_bins": [1, 10**9],
        "hist_bound": [0.0, math.inf],
        "hist_tau": [0.0, -1.0, math.nan],
        "hist_size": [-1, 10**9],
        "hist_reference": ["mean"],
        "anneal_on": ["all"],
        "d_fakes": ["source"],
        **{name: [-1.0, math.nan, math.inf] for name in ("lambda_sup", "alpha", "beta")},
        "beta1": [1.0],
        "beta2": [-0.5],
    },
    "nst": {
        "crop": [0, 24, 36, 10**9],
        "variant": ["ad"],
        "discriminator_learning_rate": [0.0, -1e-5, math.nan, math.inf],
        "content_pairs": [-1],
        "pair_by": ["pixels"],
        "channels": [0, 10**9],
        "stem_stride": [0, 3, 8],
        "body": ["W18"],
        "johnson_channels": [0, 10**9],
        "johnson_blocks": [-1, 10**9],
        "discriminator_channels": [0, 10**9],
        "discriminator_layers": [0, 9],
        "loss_form": ["raw"],
        **{f"lambda_{name}": [-1.0, math.nan, math.inf] for name in ("content", "style", "adversarial")},
        "feature_network": ["vgg16"],
        "feature_weights": ["imagenet"],
        "feature_seed": [-1],
        "feature_normalization": ["caffe"],
        "content_layer": ["", "relu2_2"],  # of another network
        "style_layers": ["deep", (), ("relu1", "conv1_1")],
        **{f"{name}beta{number}": [-0.1, 1.0] for name in ("", "discriminator_") for number in (1, 2)},
    },
}
IMPOSSIBLE = [
    (system, name, value)
    for system in CONFIGS
    for name, values in (COMMON | OWN.get(system, {})).items()
    for value in values
]


@pytest.mark.parametrize(("system", "name", "value"), IMPOSSIBLE)
def test_settings_out_of_range_are_refused_by_name(system: str, name: str, value: Any) -> None:
    """Before any network is made: some of these would take all memory there is."""
    with pytest.raises(InputError, match=rf"\b{name}\b"):
        SYSTEMS[system](config=CONFIGS[system] | {name: value})


# ---- what every system says --------------------------------------------------------------------------------------


def sentences(kind: type) -> dict[str, str]:
    """The string after each field of a dataclass, by the field's name."""
    tree = ast.parse(inspect.cleandoc(inspect.getsource(kind)))
    body = next(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)).body
    found = {}
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            found[node.target.id] = str(following.value.value) if is_text else ""
    return found


@pytest.mark.parametrize("kind", [SystemConfig, *(system.config_type for system in SYSTEMS.values())])
def test_every_setting_has_its_sentence(kind: type) -> None:
    said = sentences(kind)
    assert kind.__doc__
    assert {item.name for item in fields(kind)} - {item.name for item in fields(SystemConfig)} <= set(said)
    for name, text in said.items():
        assert len(text.split()) >= 2, f"{kind.__name__}.{name} has no sentence"
        assert text.rstrip().endswith("."), f"{kind.__name__}.{name}: {text!r}"


@pytest.mark.parametrize("name", SYSTEMS)
def test_configs_are_frozen_and_make_themselves_again(name: str) -> None:
    kind = SYSTEMS[name].config_type
    for config in (kind(), make_settings(kind, CONFIGS[name], "small")):
        assert make_settings(kind, json.loads(json.dumps(plain(config))), "again") == config
        assert config.total_epochs == config.epochs + config.decay_epochs
    with pytest.raises(AttributeError):
        config.epochs = 3


def test_the_systems_are_visible() -> None:
    assert list(SYSTEMS) == sorted(CONFIGS, key=list(SYSTEMS).index)
    assert all(system.name == name for name, system in SYSTEMS.items())
    with pytest.raises(TypeError):
        SYSTEMS["mine"] = SYSTEMS["stst"]  # type: ignore[index]
