"""`train`: a system, its data and its devices, put together for the loop of `session.py`, which trains every system.

    recipe = make_recipe({"system": "staingan", "data": {"source": ["aperio/"], "target": ["hamamatsu/"]}})
    train(recipe, "runs/ah")
    restain.load("runs/ah").transform(image)

A run that is killed at any moment goes on from its last checkpoint with `resume=True`, on a CPU bit for bit as if
nothing had happened. 🤗 accelerate brings devices, precision, gradient accumulation and several processes
(`accelerate launch -m restain train …`).
"""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from restain.errors import InputError
from restain.systems import SYSTEMS, System
from restain.training.content_pairs import pairs_sheet, write_table
from restain.training.data import TrainingData
from restain.training.engine import make_accelerator
from restain.training.run_folder import RunFolder, refuse_folder
from restain.training.sampling import shard
from restain.training.session import Session
from restain.training.session import TrainingResult as TrainingResult
from restain.training.settings import Recipe, make_recipe, shipped_recipes

if TYPE_CHECKING:
    from accelerate import Accelerator

SLOW_ON_CPU = 5_000_000
"""Parameters of a generator beyond which a training on a CPU takes days."""


def train(
    recipe: Recipe,
    output: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    quiet: bool = False,
    system: System | None = None,
) -> TrainingResult:
    """Train a system into a run's folder.

    Args:
        recipe: all settings.
        output: the folder; new or empty, unless `resume` or `overwrite`.
        resume: whether to go on with the run that is there; the recipe must be the run's own.
        overwrite: whether a run that is there is removed.
        device: "auto", "cpu" or "cuda".
        quiet: whether to show no progress.
        system: what is trained, where it is ready already: with a network of one's own in it, or weights to begin with.
            None for a new one. Its settings must be the recipe's.

    Raises:
        InputError, SlideError: settings or images that cannot be.
        OutputError: the folder cannot be used. TrainingError: the run has died; its last good checkpoint is kept.
    """
    output = Path(output)
    accelerator = make_accelerator(recipe.training, device)
    main, several = accelerator.is_main_process, accelerator.num_processes > 1
    if main and not resume:
        refuse_folder(output, overwrite=overwrite)  # before the images are listed, which may take a while
    # Before the folder is made: what cannot be trained leaves none.
    torch.manual_seed(recipe.training.seed)  # of initial weights: the same in every process
    if system is None:
        system = SYSTEMS[recipe.system](config=recipe.config, background=recipe.background)
    _check_system(recipe, system)
    with ExitStack() as stack:
        descriptor = system.content_descriptor() if recipe.data.content_pairs else None
        pin = accelerator.device.type == "cuda"
        data = stack.enter_context(TrainingData(recipe.data, pin_memory=pin, descriptor=descriptor))
        _check_data(recipe, system, data, accelerator)
        for note in _notes(system, data, accelerator) if main and not quiet else ():
            print(f"restain: note: {note}", file=sys.stderr)
        run = stack.enter_context(_open_run(recipe, output, resume, overwrite, accelerator))
        session = Session(recipe, system, data, run, accelerator, quiet=quiet)
        if resume:
            session.resume()
        if main and data.content_pairs:
            write_table(run.pairs, data.content_pairs)
            run.save_pairs_sheet(pairs_sheet(data.content_images()))
        if main:
            run.record_start(command=sys.argv, device=str(accelerator.device), precision=accelerator.mixed_precision)
        result = session.train()
    if several:
        accelerator.end_training()
    return result


def _check_system(recipe: Recipe, system: System) -> None:
    """See that a system is what the recipe says it is."""
    if system.name != recipe.system:
        raise InputError(f"got a system {system.name} with a recipe of {recipe.system}")
    if system.config != recipe.config or system.background != recipe.background:
        raise InputError(f"the settings of the given {system.name} are not the recipe's; make both from the same ones")
    if not system.trainable:
        raise InputError(f"the given {system.name} was made with trainable=False, without what only training needs")


def _check_data(recipe: Recipe, system: System, data: TrainingData, accelerator: "Accelerator") -> None:
    """See that the system can learn from these data as the recipe says, by so many processes."""
    missing = [domain for domain in system.domains if domain not in data.roles]
    if missing:
        raise InputError(f"{system.name} learns from {' and '.join(system.domains)}; give --{missing[0]} too")
    if system.paired and not data.paired:
        raise InputError(f"{system.name} learns from pairs of the same tissue; say with --pairs which they are")
    if system.labelled:
        _check_labels(recipe, system, data)
    if recipe.training.select == "best":
        if type(system).validation_loss is System.validation_loss:
            raise InputError(f"select is best, but {system.name} has no validation loss; wanted last or auto")
        if not all(data.validation.get(role) for role in data.roles):
            raise InputError("select is best, but no image is kept for validation; wanted last or auto")
    shard(0, data.settings.batch, accelerator.process_index, accelerator.num_processes)


def _check_labels(recipe: Recipe, system: System, data: TrainingData) -> None:
    if not data.classes:
        raise InputError(
            f"{system.name} with these settings learns from labels of the target; say with --labels what they are: "
            "folders (each image lies in that of its class), or a csv with the columns image,label"
        )
    config: Any = recipe.config
    wanted, count = config.task_classes, len(data.classes)
    if count != wanted:
        raise InputError(
            f"the target has {count} classes ({', '.join(data.classes)}), and task_classes is {wanted}; "
            f"give --set config.task_classes={count}, or other labels"
        )


def _notes(system: System, data: TrainingData, accelerator: "Accelerator") -> list[str]:
    """What a person should know before a training."""
    notes = [*data.notes, *system.caveats]
    size, small = _size(system.generator), f"{system.name}-small"
    if accelerator.device.type == "cpu" and size > SLOW_ON_CPU:
        hint = f"; --recipe {small} shows sooner what it learns" if small in shipped_recipes() else ""
        notes.append(f"a network of {size / 1e6:.0f} million parameters takes days on a CPU{hint}")
    return notes


def _size(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def _open_run(recipe: Recipe, output: Path, resume: bool, overwrite: bool, accelerator: "Accelerator") -> RunFolder:
    """The run's folder, locked by the first process, opened by the others after it."""
    run = None
    if accelerator.is_main_process:
        run = RunFolder.open(output) if resume else RunFolder.create(output, recipe.plain(), overwrite=overwrite)
        if resume and make_recipe(run.settings, str(output / "settings.toml")) != recipe:
            run.close()
            raise InputError(
                f"the settings are not those of the run {output}; resume it with its own, or start a new one"
            )
    accelerator.wait_for_everyone()
    return run or RunFolder.open(output, lock=False)
