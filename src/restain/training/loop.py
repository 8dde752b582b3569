"""The loop that trains every system: data, system, devices, the loop itself, and what it leaves behind.

    recipe = make_recipe({"system": "staingan", "data": {"source": ["aperio/"], "target": ["hamamatsu/"]}})
    train(recipe, "runs/ah")
    restain.load("runs/ah").transform(image)

A run that is killed at any moment goes on from its last checkpoint with `resume=True`, on a CPU bit for bit as if
nothing had happened. 🤗 accelerate brings devices, precision, gradient accumulation and several processes
(`accelerate launch -m restain train …`).
"""

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from restain import __version__
from restain.color.glass import find_white_point
from restain.color.images import RGB8
from restain.errors import InputError, MissingExtraError
from restain.systems import SYSTEMS, System
from restain.systems.schedule import learning_rate_factor
from restain.training.average import Average
from restain.training.data import TrainingData
from restain.training.engine import AccelerateEngine, distributed, make_accelerator
from restain.training.health import Health, check_parameters
from restain.training.interrupt import Interrupt
from restain.training.metrics_log import MetricsLog, plot_losses
from restain.training.progress import TrainingProgress, training_progress
from restain.training.run_folder import RunFolder
from restain.training.settings import Recipe
from restain.training.sheet import validation_sheet
from restain.training.state import load_training, training_state

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class TrainingResult:
    """What a training left: its folder, the file that normalizes, updates done, seconds, the best validation loss."""

    run: Path
    normalizer: Path
    steps: int
    seconds: float
    validation_loss: float | None


def train(
    recipe: Recipe,
    output: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    quiet: bool = False,
) -> TrainingResult:
    """Train a system into a run's folder.

    Args:
        recipe: all settings.
        output: the folder; new or empty, unless `resume` or `overwrite`.
        resume: whether to go on with the run that is there; the recipe must be the run's own.
        overwrite: whether a run that is there is removed.
        device: "auto", "cpu" or "cuda".
        quiet: whether to show no progress.

    Raises:
        InputError, SlideError: settings or images that cannot be.
        OutputError: the folder cannot be used. TrainingError: the run has died; its last good checkpoint is kept.
    """
    accelerator = make_accelerator(recipe.training, device)
    with ExitStack() as stack:
        main = accelerator.is_main_process
        data = stack.enter_context(TrainingData(recipe.data, pin_memory=accelerator.device.type == "cuda"))
        run = _open_run(recipe, Path(output), resume=resume, overwrite=overwrite, accelerator=accelerator)
        stack.enter_context(run)
        for note in data.notes if main and not quiet else ():
            print(f"restain: note: {note}", file=sys.stderr)
        torch.manual_seed(recipe.training.seed)  # of initial weights: the same in every process
        system = SYSTEMS[recipe.system](config=recipe.config, background=recipe.background)
        missing = [domain for domain in system.domains if domain not in data.roles]
        if missing:
            raise InputError(f"{recipe.system} learns from {' and '.join(system.domains)}; give --{missing[0]} too")
        session = Session(recipe, system, data, run, accelerator, quiet=quiet)
        if resume:
            session.resume()
        if main:
            run.record_start(command=sys.argv, device=str(accelerator.device), precision=accelerator.mixed_precision)
        return session.train()


class Session:
    """One start of a run: what is trained, where it has got to, and how it is saved."""

    def __init__(
        self,
        recipe: Recipe,
        system: System,
        data: TrainingData,
        run: RunFolder,
        accelerator: "Accelerator",
        *,
        quiet: bool = False,
    ) -> None:
        self.recipe, self.settings, self.system, self.data, self.run = recipe, recipe.training, system, data, run
        self.accelerator, self.engine = accelerator, AccelerateEngine(accelerator, recipe.training.clip_norm)
        self.main, self.quiet = accelerator.is_main_process, quiet
        self.step, self.seconds = 0, 0.0
        self.best_loss: float | None = None
        self.last_loss: float | None = None  # of the latest validation, at the step `validated`
        self.validated = -1
        self._clock = time.monotonic()
        self.health = Health(recipe.health)
        self._prepare()
        # From here on each process draws numbers of its own (dropout), the first those of a single one.
        torch.manual_seed(recipe.training.seed + accelerator.process_index)
        self.average = Average(system.generator, recipe.training.ema) if recipe.training.ema else None
        epochs = recipe.config.total_epochs * data.batches_per_epoch
        self.total = min(epochs, self.settings.max_steps) if self.settings.max_steps else epochs
        self.white = find_white_point(data.histogram("target")) if self.main else None

    # ---- the story ------------------------------------------------------------------------------------------------

    def train(self) -> TrainingResult:
        """Run to the end."""
        with ExitStack() as stack:
            log = stack.enter_context(self._log()) if self.main else None
            show = training_progress(self.total, self.step, quiet=self.quiet or not self.main)
            progress = stack.enter_context(show)
            interrupt = stack.enter_context(Interrupt())
            self._run(log, progress, interrupt)
        return TrainingResult(self.run.path, self.run.normalizer, self.step, self.seconds, self.best_loss)

    def _run(self, log: MetricsLog | None, progress: TrainingProgress, interrupt: Interrupt) -> None:
        if self.step == 0:
            self._validate(progress)
        pending: list[dict[str, Tensor]] = []
        self._clock = time.monotonic()
        while self.step < self.total:
            epoch, start = divmod(self.step, self.data.batches_per_epoch)
            self._set_learning_rates(epoch)
            rank, world = self.accelerator.process_index, self.accelerator.num_processes
            for batch in self.data.batches(epoch, start=start, rank=rank, world=world):
                pending.append(self._update(batch))
                self.step += 1
                done = self.step >= self.total
                saves = self.step % self.settings.checkpoint_every == 0 or done or interrupt.signal != 0
                if self.step % self.settings.log_every == 0 or saves:  # a checkpoint is of a run that is well
                    self._report(pending, log, progress)
                    pending = []
                if self.step % self.settings.validate_every == 0 or done:
                    self._validate(progress)
                if saves:
                    self._checkpoint(log)
                if interrupt.signal and not done:
                    progress.say(f"interrupted; --resume goes on from step {self.step}")
                    raise KeyboardInterrupt
                if done:
                    break
        if self.main:
            if not self.run.normalizer.exists():  # resumed at its very end
                self._save_normalizer()
            self._draw_curves()

    def _update(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        device = self.accelerator.device
        images = {name: to_floats(value.to(device, non_blocking=True)) for name, value in batch.items()}
        self._set_training(True)
        with self.accelerator.accumulate(*self.system.networks().values()):
            losses = self.system.update(images, self.engine)
        if self.average is not None and self.accelerator.sync_gradients:
            self.average.update(self.system.generator)
        return losses

    # ---- what is looked at on the way -----------------------------------------------------------------------------

    def _report(
        self, pending: Sequence[Mapping[str, Tensor]], log: MetricsLog | None, progress: TrainingProgress
    ) -> None:
        """Means of the losses since the last report, to the log and the screen; every single one to the health."""
        names = list(pending[0])
        table = torch.stack([torch.stack([losses[name].float() for name in names]) for losses in pending]).cpu()
        for offset, row in enumerate(table.tolist()):
            losses = dict(zip(names, row, strict=True))
            spread = losses.pop("output_std", None)
            self.health.check(self.step - len(pending) + offset + 1, losses, output_std=spread)
        means = dict(zip(names, table.mean(dim=0).tolist(), strict=True))
        self._add_time()
        if log is not None:
            rates = {name: float(o.param_groups[0]["lr"]) for name, o in self.system.optimizers.items()}
            epoch = self.step / self.data.batches_per_epoch
            log.write(self.step, epoch=epoch, seconds=self.seconds, losses=means, rates=rates)
        progress.update(self.step, means)

    def _validate(self, progress: TrainingProgress) -> None:
        """A sheet of pictures, and the validation loss; better weights than ever become the normalizer."""
        if not self.main:
            return
        self._set_training(False)
        with self._averaged():
            self._finish_system()
            self.run.save_picture(self.step, self._sheet())
            self._draw_curves()
            loss = self.last_loss = self._validation_loss()
            self.validated = self.step
            if loss is not None:
                progress.say(f"step {self.step}: validation loss {loss:.5f}")
                if self.step and (self.best_loss is None or loss < self.best_loss):
                    self.best_loss = loss
                    if self._takes_best(loss):
                        self._save_normalizer()
            if self.step and not self._takes_best(loss):
                self._save_normalizer()
        self._set_training(True)

    def _draw_curves(self) -> None:
        if self.step:
            with suppress(MissingExtraError):  # matplotlib: the log is there without it
                plot_losses(self.run.path, self.run.curves)

    def _takes_best(self, loss: float | None) -> bool:
        if self.settings.select == "best" and loss is None:
            raise InputError(f"{self.recipe.system} has no validation loss here; wanted select = last")
        return self.settings.select != "last" and loss is not None

    def _validation_loss(self) -> float | None:
        total, count = 0.0, 0
        with torch.inference_mode():
            for batch in self.data.validation_batches(most=self.settings.validation_most):
                images = {name: to_floats(value.to(self.accelerator.device)) for name, value in batch.items()}
                loss = self.system.validation_loss(images)
                if loss is None:
                    return None
                number = len(next(iter(images.values())))
                total, count = total + float(loss) * number, count + number
        return total / count if count else None

    def _sheet(self) -> Any:
        """Source, normalized and target tiles side by side."""
        images = {role: to_images(batch) for role, batch in self.data.validation_images(self.settings.pictures).items()}
        shown = "source" if "source" in images else "target"
        columns = {shown: images[shown], "normalized": [self.system.transform(image) for image in images[shown]]}
        if shown == "source" and "target" in images:
            columns["target" if self.data.paired else "a target"] = images["target"]
        least = min(map(len, columns.values()))
        title = f"{self.recipe.system}, step {self.step} of {self.total}"
        return validation_sheet({name: tiles[:least] for name, tiles in columns.items()}, title)

    # ---- what is left behind --------------------------------------------------------------------------------------

    def _checkpoint(self, log: MetricsLog | None) -> None:
        """Write everything that the next update depends on."""
        self.accelerator.wait_for_everyone()
        self._add_time()
        path = self.run.checkpoints / f"step-{self.step:08d}.safetensors"
        check_parameters(
            self.system.networks(), self.system.optimizers, step=self.step, checkpoint=self.health.checkpoint
        )
        state = training_state(self)  # with the other processes' random numbers, so all of them take part
        if self.main:
            if log is not None:
                log.sync()
            # The folder takes the larger score for the better one.
            score = -self.last_loss if self.last_loss is not None and self.validated == self.step else None
            path = self.run.save_checkpoint(self.step, state, score=score)
        self.health.checkpoint = path
        self.accelerator.wait_for_everyone()

    def resume(self) -> None:
        """Go on from the newest checkpoint; from the beginning where there is none yet."""
        found = self.run.latest_checkpoint()
        if found is not None:
            load_training(self, found.state)
            self.health.checkpoint = found.path

    def _save_normalizer(self) -> None:
        self._finish_system()
        self.system.normalizer().save(self.run.normalizer, overwrite=True)

    def _finish_system(self) -> None:
        assert self.white is not None
        facts = {
            "software": f"restain {__version__}",
            "steps": self.step,
            "epochs": round(self.step / self.data.batches_per_epoch, 3),
            "training_images": {role: len(pictures) for role, pictures in self.data.training.items()},
            "data_sha256": self.data.digest,
            "training_data_license": self.settings.training_data_license,
        }
        self.system.finish(self.white.level.tolist(), self.white.origin, {"training": facts})

    # ---- small parts ----------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Networks and optimizers on their device, wrapped for several processes."""
        system, accelerator = self.system, self.accelerator
        for name, network in system.networks().items():
            network.to(accelerator.device)
            if self.settings.channels_last:
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            setattr(system, name, distributed(network, accelerator))
        system.optimizers = {
            name: accelerator.prepare_optimizer(optimizer) for name, optimizer in system.make_optimizers().items()
        }
        system.device = str(accelerator.device)

    def _set_learning_rates(self, epoch: int) -> None:
        config = self.recipe.config
        factor = learning_rate_factor(config.schedule, epoch, config.epochs, config.decay_epochs)
        for optimizer in self.system.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor

    def _set_training(self, training: bool) -> None:
        for network in self.system.networks().values():
            network.train(training)

    def _averaged(self) -> Any:
        return ExitStack() if self.average is None else self.average.in_place_of(self.system.generator)

    def _log(self) -> MetricsLog:
        board = self.run.tensorboard if self.settings.tensorboard else None
        return MetricsLog(self.run.metrics, resume_step=self.step, tensorboard=board)

    def _add_time(self) -> None:
        now = time.monotonic()
        self.seconds += now - self._clock
        self._clock = now


def to_floats(images: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) as floats in 0..1."""
    return images.float().div_(255)


def to_images(batch: Tensor) -> list[RGB8]:
    """uint8 (N, 3, H, W) as N arrays (H, W, 3)."""
    return [image.permute(1, 2, 0).contiguous().numpy() for image in batch]


def _open_run(recipe: Recipe, output: Path, *, resume: bool, overwrite: bool, accelerator: "Accelerator") -> RunFolder:
    """The run's folder, locked by the first process, opened by the others after it."""
    run = None
    if accelerator.is_main_process:
        run = RunFolder.open(output) if resume else RunFolder.create(output, recipe.plain(), overwrite=overwrite)
    accelerator.wait_for_everyone()
    return run or RunFolder.open(output, lock=False)
