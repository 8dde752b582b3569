"""`restain train`: a network from images, by one paper's system."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from restain.cli.options import Assignments, Background, Flag, Output, need
from restain.errors import InputError

if TYPE_CHECKING:
    from restain.training.settings import Recipe


def train(
    system: str | None = None,
    /,
    *,
    source: tuple[str, ...] = (),
    target: tuple[str, ...] = (),
    pairs: str | None = None,
    validation_source: tuple[str, ...] = (),
    validation_target: tuple[str, ...] = (),
    validation_pairs: str | None = None,
    labels: str | None = None,
    output: Output,
    recipe: str | None = None,
    set_: Assignments = (),
    epochs: int | None = None,
    batch_size: int | None = None,
    crop: int | None = None,
    learning_rate: float | None = None,
    variant: str | None = None,
    task: str | None = None,
    task_weights: Path | None = None,
    feature_weights: str | None = None,
    max_steps: int | None = None,
    seed: int | None = None,
    workers: int | None = None,
    precision: Literal["auto", "no", "bf16", "fp16"] | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    background: Background | None = None,
    training_data_license: str | None = None,
    tensorboard: Flag = False,
    resume: Flag = False,
    overwrite: Flag = False,
) -> int:
    """Train a system: staingan, stainnet, stst, chen, nst, dstgan. Needs `pip install 'restain[train]'`.

    Parameters
    ----------
    system: str
        The system; may be left out where a recipe names it, and with --resume.
    source: tuple[str, ...]
        Images to be changed: a folder, slides, a pattern; may be given several times.
    target: tuple[str, ...]
        Images of the wanted appearance, likewise.
    pairs: str
        For systems that learn from pairs: a csv with the columns source,target, or "names" for files of one name.
    validation_source: tuple[str, ...]
        Images kept for validation, instead of a tenth of the source.
    validation_target: tuple[str, ...]
        The same for the target.
    validation_pairs: str
        The same for pairs.
    labels: str
        For systems that learn from labels of the target: "folders" for the name of the folder that each image lies in,
        or a csv with the columns image,label.
    output: Path
        The run's folder: settings, log, pictures, checkpoints, and the trained normalizer.
    recipe: str
        A TOML file, or a shipped recipe, such as staingan-small; what is given here goes before it.
    set_: tuple[str, ...]
        Any setting of a recipe, as in --set config.channels=32; may be given several times.
    epochs: int
        Epochs at the full learning rate.
    batch_size: int
        Images an update, of each domain.
    crop: int
        Side of the training crops, pixels.
    learning_rate: float
        Of every network, at the beginning.
    variant: str
        Which of a paper's variants, for systems that have some.
    task: str
        The classifier whose answers are to be kept, for systems that have one.
    task_weights: Path
        Its weights; without, it is trained first.
    feature_weights: str
        Where the weights of a perceptual loss come from, for systems that have one.
    max_steps: int
        Batches after which training ends though epochs are left.
    seed: int
        Of weights, order, crops and dropout.
    workers: int
        Processes that decode images ahead.
    precision: str
        Of forward passes; bf16 by default where the hardware has it.
    device: str
        Where to train.
    background: str
        What becomes of glass when the trained system normalizes; see `restain normalize`.
    training_data_license: str
        Licence of the training images, to be kept with the weights.
    tensorboard: bool
        Log for TensorBoard, too.
    resume: bool
        Go on with the run that is in the output folder; its settings are its own.
    overwrite: bool
        Remove the run that is in the output folder.
    """
    given = {
        "system": system,
        "background": background,
        "config": {
            "epochs": epochs,
            "batch_size": batch_size,
            "crop": crop,
            "learning_rate": learning_rate,
            "variant": variant,
            "task": task,
            "task_weights": None if task_weights is None else str(task_weights),
            "feature_weights": feature_weights,
        },
        "data": {
            "source": list(source) or None,
            "target": list(target) or None,
            "pairs": pairs,
            "validation_source": list(validation_source) or None,
            "validation_target": list(validation_target) or None,
            "validation_pairs": validation_pairs,
            "labels": labels,
            "workers": workers,
            "seed": seed,
        },
        "training": {
            "max_steps": max_steps,
            "seed": seed,
            "precision": precision,
            "tensorboard": tensorboard or None,
            "training_data_license": training_data_license,
        },
    }
    values = _without_none(given)
    need("train", "training", "torch", "accelerate")
    from restain.training.loop import train as run
    from restain.training.progress import duration

    if resume and overwrite:
        raise InputError("--resume goes on with the run that --overwrite would remove; give one of them")
    resolved = _resumed(output, values, recipe, set_) if resume else _resolved(values, recipe, set_)
    result = run(resolved, output, resume=resume, overwrite=overwrite, device=device)
    if result.main:
        best = "" if result.validation_loss is None else f", best validation loss {result.validation_loss:.5f}"
        print(f"{result.normalizer}: {resolved.system}, {result.steps} updates in {duration(result.seconds)}{best}")
        print(f"look at {result.run / 'pictures'} and {result.run / 'curves.png'}; apply it with:")
        print(f"restain normalize IMAGES OUTPUT --normalizer {shlex.quote(str(result.run))}")
    return 0


def _resolved(values: dict[str, Any], recipe: str | None, assignments: tuple[str, ...]) -> "Recipe":
    from restain.systems import SYSTEMS
    from restain.training.settings import make_recipe, merged, parse_overrides, read_recipe

    base = read_recipe(recipe) if recipe else {}
    if "system" in base and values.get("system", base["system"]) != base["system"]:
        raise InputError(f"the recipe {recipe} is of {base['system']}, not of {values['system']}")
    layers = merged(base, values, parse_overrides(assignments))
    if "system" not in layers:
        raise InputError(f"name a system ({', '.join(SYSTEMS)}) or a --recipe")
    return make_recipe(layers, recipe or "the command line")


def _resumed(output: Path, values: dict[str, Any], recipe: str | None, assignments: tuple[str, ...]) -> "Recipe":
    """The run's own recipe. Settings may be repeated, as in the command that started it, but not changed."""
    from restain.training.run_folder import RunFolder
    from restain.training.settings import make_recipe, merged, parse_overrides, read_recipe

    where = str(output / "settings.toml")
    settings = RunFolder.open(output, lock=False).settings
    own = make_recipe(settings, where)
    given = merged(settings, read_recipe(recipe) if recipe else {}, values, parse_overrides(assignments))
    asked = make_recipe(given, where).plain() if given["system"] == own.system else {"system": given["system"]}
    changed = [name for name, value in _flat(asked).items() if value != _flat(own.plain())[name]]
    if changed:
        names = ", ".join(changed)
        raise InputError(f"--resume goes on with the run's own settings; leave out the others ({names}), or start anew")
    return own


def _flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Nested values by their full names."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        result |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
    return result


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    """What was given, without tables in which nothing was."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        kept = _without_none(value) if isinstance(value, dict) else value
        if kept is not None and kept != {}:
            result[name] = kept
    return result
