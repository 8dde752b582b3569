"""The commands of training: one short function each. Nothing heavy is imported before a command needs it."""

import importlib.util
import json
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from restain.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from restain.training.settings import Recipe

Background = Literal["match", "keep", "white", "none"]


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
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    recipe: str | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
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
    tensorboard: Annotated[bool, Parameter(negative="")] = False,
    resume: Annotated[bool, Parameter(negative="")] = False,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
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
    _need("train", "training", "torch", "accelerate")
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


def distill(
    teacher: Path,
    /,
    *,
    images: tuple[str, ...],
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    student: Literal["stainnet", "colormap"] = "stainnet",
    kernels: str | None = None,
    recipe: str = "stainnet-small",
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    test: tuple[str, ...] = (),
    select_on: Literal["validation", "test"] = "validation",
    estimate: Literal["image", "folder"] = "image",
    tile: int = 256,
    tiles: int = 0,
    lattice: int = 33,
    validation_share: float = 0.1,
    group_pattern: str = "",
    background: Background | None = None,
    training_data_license: str | None = None,
    run: Path | None = None,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Make a colour map, or a StainNet, of any normalizer: a trained network, or a method. Needs PyTorch.

    Parameters
    ----------
    teacher: Path
        A training run's folder, or a saved normalizer.
    images: tuple[str, ...]
        Images of the source: a folder, slides, a pattern; may be given several times.
    output: Path
        The student to write, .safetensors.
    student: str
        The network StainNet, or a colormap fitted to the colours, without training.
    kernels: str
        Of StainNet's convolutions, instead of the recipe's: 1,1,1 is a colour map; with 3s, as in 3,1,1, it sees
        neighbours.
    recipe: str
        Of StainNet's training: stainnet-small takes minutes, stainnet is the paper's.
    set_: tuple[str, ...]
        Any setting of that recipe, as in --set config.epochs=20.
    test: tuple[str, ...]
        Images that the student is judged on at the end.
    select_on: str
        Which tiles choose the student's weights; test is the paper's leak, for parity.
    estimate: str
        Whether the teacher sees each tile by itself (image), or all of them as one slide's (folder).
    tile: int
        Side of the teacher's tiles, pixels.
    tiles: int
        Most tiles; 0 for all.
    lattice: int
        Points along each side of a colormap's lattice.
    validation_share: float
        Share of the images that the student is not trained on.
    group_pattern: str
        Regular expression whose first group, in a file's path, names its slide or patient: none is on both sides.
    background: str
        What becomes of glass, for the teacher and the student; the teacher's by default.
    training_data_license: str
        Licence of the images, to be kept with the student; the teacher's by default.
    run: Path
        A folder that keeps the teacher's work and the student's training; they are removed by default.
    seed: int
        Of the split and the student.
    device: str
        Where to compute.
    json_: bool
        Print a machine-readable summary.
    overwrite: bool
        Replace an existing student.
    """
    _need("train", "distilling", "torch", *(["accelerate"] if student == "stainnet" else []))
    from restain.saved import load_with
    from restain.terminal import file_progress
    from restain.training.distill import DistillSettings
    from restain.training.distill import distill as make
    from restain.training.settings import parse_overrides

    try:
        sides = None if kernels is None else tuple(int(kernel) for kernel in kernels.split(","))
    except ValueError:
        raise InputError(f"got --kernels {kernels}; wanted sides such as 1,1,1") from None
    settings = DistillSettings(
        student=student,
        kernels=sides,
        recipe=recipe,
        overrides=parse_overrides(set_),
        tile=tile,
        tiles=tiles,
        estimate=estimate,
        validation_share=validation_share,
        select_on=select_on,
        group_pattern=group_pattern,
        training_data_license=training_data_license,
        lattice=lattice,
        seed=seed,
    )
    fitted = load_with(teacher, background)
    with file_progress(0, "the teacher's work") as progress:
        result = make(
            fitted,
            images,
            output,
            settings,
            test=test,
            run=run,
            device=device,
            overwrite=overwrite,
            quiet=json_,
            progress=progress,
        )
    facts = {
        "output": str(output),
        "method": result.student.name,
        "psnr": round(result.psnr, 3) if math.isfinite(result.psnr) else None,  # None: the very same pixels
        "ssim": round(result.ssim, 5),
        "tiles": result.judged,
        "judged_on": "test" if result.on_test else "validation",
        "unexplained": result.unexplained,
    }
    if json_:
        print(json.dumps(facts, indent=2))
        return 0
    print(
        f"{output}: {result.student.name}, {result.psnr:.2f} dB and SSIM {result.ssim:.4f} to its teacher on "
        f"{result.judged} {facts['judged_on']} tiles"
    )
    if result.unexplained is not None:
        print(f"{result.unexplained:.1%} of the variance of the teacher's colours no map of colours could give")
    return 0


def export(
    normalizer: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    slide: str | None = None,
    background: Background | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Write a trained network as ONNX, for other runtimes: 8-bit images in, 8-bit images out.

    Parameters
    ----------
    normalizer: Path
        A training run's folder, or a saved network or StainNet.
    output: Path
        The file to write, .onnx.
    slide: str
        A slide whose norm statistics are frozen into the file; without, each image is normalized by its own.
    background: str
        What becomes of glass; with none the file has no input for the slide's white point.
    overwrite: bool
        Replace an existing file.
    """
    _need("export", "exporting", "torch", "onnx", "onnxscript")
    from restain.saved import load_with
    from restain.systems.onnx import export_onnx

    if output.suffix != ".onnx":
        raise InputError(f"{output} should end in .onnx")
    fitted = load_with(normalizer, background)
    appearance = None
    if slide is not None:
        from restain.slides.reader import open_slide
        from restain.slides.sample import estimate_slide, sample_slide

        with open_slide(slide) as opened:
            appearance, _ = estimate_slide(opened, fitted, sample_slide(opened))
    export_onnx(fitted, output, appearance=appearance, overwrite=overwrite)
    print(f"{output}: {fitted.name}, {output.stat().st_size / 1e6:.1f} MB")
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


def _need(extra: str, what: str, *modules: str) -> None:
    """Raise `MissingExtraError` where one of the modules is not installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(f"{what} needs {module}; install it: pip install 'restain[{extra}]'")


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    """What was given, without tables in which nothing was."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        kept = _without_none(value) if isinstance(value, dict) else value
        if kept is not None and kept != {}:
            result[name] = kept
    return result
