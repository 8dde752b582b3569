"""One start of a training: the loop itself, what it looks at on the way, and what it leaves behind."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from restain import __version__
from restain.color.glass import find_white_point
from restain.errors import MissingExtraError
from restain.systems import System
from restain.systems.frozen import unwrapped
from restain.systems.schedule import learning_rate_factor
from restain.training.average import Average
from restain.training.data import TrainingData
from restain.training.engine import AccelerateEngine, distributed
from restain.training.health import Health, check_parameters
from restain.training.interrupt import Interrupt
from restain.training.metrics_log import MetricsLog, plot_losses
from restain.training.progress import TrainingProgress, training_progress
from restain.training.run_folder import RunFolder
from restain.training.settings import Recipe
from restain.training.state import load_training, training_state
from restain.training.tally import Tally
from restain.training.validation import picture_sheet, to_floats, validation_loss

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class TrainingResult:
    """What a training left.

    Attributes:
        run: its folder.
        normalizer: the file that normalizes.
        steps: updates done, over all starts of the run.
        seconds: time they took.
        validation_loss: the least; None where there is none.
        main: whether this is the one process, or the first of several.
    """

    run: Path
    normalizer: Path
    steps: int
    seconds: float
    validation_loss: float | None
    main: bool = True


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
        self._validated: tuple[int, float | None] = (-1, None)  # step and loss of the latest validation
        self._clock = time.monotonic()
        self.health = Health(recipe.health)
        self.tally = Tally(self.health)
        self._prepare()
        # From here on each process draws numbers of its own (dropout), the first those of a single one.
        torch.manual_seed(recipe.training.seed + accelerator.process_index)
        self.average = Average(system.generator, recipe.training.ema) if recipe.training.ema else None
        steps = recipe.config.total_epochs * data.batches_per_epoch
        steps = min(steps, self.settings.max_steps) if self.settings.max_steps else steps
        accumulate = self.settings.accumulate
        self.total = max(steps - steps % accumulate, accumulate)  # what is added up last is stepped by, too
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
        return TrainingResult(self.run.path, self.run.normalizer, self.step, self.seconds, self.best_loss, self.main)

    def _run(self, log: MetricsLog | None, progress: TrainingProgress, interrupt: Interrupt) -> None:
        if self.step == 0:
            self._validate(progress)
        self._clock = time.monotonic()
        while self.step < self.total:
            epoch, start = divmod(self.step, self.data.batches_per_epoch)
            self._set_learning_rates(epoch)
            self.system.begin_epoch(epoch)
            rank, world = self.accelerator.process_index, self.accelerator.num_processes
            for batch in self.data.batches(epoch, start=start, rank=rank, world=world):
                self._update(batch)
                done, stop = self.step >= self.total, self._is_interrupted(interrupt)
                if self.step % self.settings.log_every == 0 or done:
                    self._report(log, progress)
                if self._is_time(self.settings.validate_every) or done:
                    self._validate(progress)
                if self._is_time(self.settings.checkpoint_every) or done or stop:
                    self._checkpoint(log)
                if stop and not done:
                    raise KeyboardInterrupt(f"interrupted; --resume goes on from step {self.step}" if self.main else "")
                if done:
                    break
        if self.main:
            if not self.run.normalizer.exists():  # somebody removed it
                with self._averaged():
                    self._save_normalizer()
            if log is not None and self.run.metrics.exists():
                try:
                    plot_losses(self.run.metrics, self.run.curves)
                except MissingExtraError as error:  # no reason to call a training failed
                    progress.say(f"the losses are not drawn: {error}")

    def _update(self, batch: Mapping[str, Tensor]) -> None:
        device = self.accelerator.device
        images = {name: to_floats(value.to(device, non_blocking=True)) for name, value in batch.items()}
        self._set_training(True)
        with self.accelerator.accumulate(*self.system.networks().values()):
            losses = self.system.update(images, self.engine)
        if self.average is not None and self.accelerator.sync_gradients:
            self.average.update(self.system.generator)
        self.step += 1
        self.tally.add(self.step, losses)

    def _is_time(self, every: int) -> bool:
        """Whether it is time for what is done every so many updates.

        While gradients are being added up it never is: they are in no checkpoint.
        """
        accumulate = self.settings.accumulate
        return self.step % (-(-every // accumulate) * accumulate) == 0

    def _is_interrupted(self, interrupt: Interrupt) -> bool:
        """Whether a signal has come, to any of the processes; all of them are told so at the same update."""
        if self.accelerator.num_processes == 1:
            return bool(interrupt.signal) and self._is_time(1)
        if not self._is_time(self.settings.log_every):  # to ask the others is to wait for them
            return False
        heard = torch.tensor(float(interrupt.signal), device=self.accelerator.device)
        return bool(self.accelerator.reduce(heard, "sum").item())

    # ---- what is looked at on the way -----------------------------------------------------------------------------

    def _report(self, log: MetricsLog | None, progress: TrainingProgress) -> None:
        """Means of the losses since the last report, to the log and the screen."""
        means = self.tally.means()
        self._add_time()
        if log is not None:
            rates = {name: float(o.param_groups[0]["lr"]) for name, o in self.system.optimizers.items()}
            epoch = self.step / self.data.batches_per_epoch
            log.write(self.step, epoch=epoch, seconds=self.seconds, losses=means, rates=rates)
        progress.update(self.step, means)

    def _validate(self, progress: TrainingProgress) -> None:
        """A sheet of pictures, and the validation loss; better weights than ever become the normalizer."""
        self._check()  # a run that has died is not judged, and its weights replace none
        if not self.main:
            return
        self._set_training(False)
        with self._averaged():
            self._finish_system()
            title = f"{self.recipe.system}, step {self.step} of {self.total}"
            self.run.save_picture(self.step, picture_sheet(self.system, self.data, self.settings.pictures, title))
            loss = validation_loss(self.system, self.data, self.accelerator.device, self.settings.validation_most)
            self._validated = self.step, loss
            if loss is not None:
                self.health.check(self.step, {"validation": loss})
                progress.say(f"step {self.step}: validation loss {loss:.5f}")
            if self.step:
                better = loss is not None and (self.best_loss is None or loss < self.best_loss)
                self.best_loss = loss if better else self.best_loss
                if better or loss is None or self.settings.select == "last":
                    self._save_normalizer()
        self._set_training(True)

    # ---- what is left behind --------------------------------------------------------------------------------------

    def _checkpoint(self, log: MetricsLog | None) -> None:
        """Write everything that the next update depends on."""
        self.accelerator.wait_for_everyone()
        self._add_time()
        path = self.run.checkpoints / f"step-{self.step:08d}.safetensors"
        self._check()
        state = training_state(self)  # with the other processes' random numbers, so all of them take part
        if self.main:
            if log is not None:
                log.sync()
            # The folder takes the larger score for the better one.
            step, loss = self._validated
            score = -loss if loss is not None and step == self.step else None
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
        if self.data.classes:
            facts["classes"] = list(self.data.classes)
        if self.system.caveats:
            facts["caveats"] = list(self.system.caveats)
        self.system.finish(self.white.level.tolist(), self.white.origin, {"training": facts})

    # ---- small parts ----------------------------------------------------------------------------------------------

    def _check(self) -> None:
        """See that all losses and all weights are finite, and the networks alive."""
        self.tally.look()
        networks = {name: unwrapped(network) for name, network in self.system.networks().items()}
        check_parameters(networks, self.system.optimizers, step=self.step, checkpoint=self.health.checkpoint)

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
