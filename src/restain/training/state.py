"""The state of a training: everything that the next update depends on, to a checkpoint and back."""

from typing import TYPE_CHECKING, Any

import torch

from restain.errors import TrainingError
from restain.systems.frozen import unwrapped

if TYPE_CHECKING:
    from restain.training.session import Session


def training_state(session: "Session") -> dict[str, Any]:
    """The state of a session, nested, as `checkpoint.save_state` takes it; called by all processes together."""
    system, accelerator = session.system, session.accelerator
    own = {"system": system.training_state(), "random": _random_state(), "tally": session.tally.state_dict()}
    if accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        processes = gather_object([_on_cpu(own)])  # what comes from another GPU would come onto that GPU
    else:
        processes = [own]
    return {
        "system": system.name,
        "data_sha256": session.data.digest,
        "step": session.step,
        "seconds": session.seconds,
        "best_loss": session.best_loss,
        "networks": {name: unwrapped(network).state_dict() for name, network in system.networks().items()},
        "optimizers": {name: optimizer.state_dict() for name, optimizer in system.optimizers.items()},
        "scaler": accelerator.scaler.state_dict() if accelerator.scaler is not None else None,
        "average": session.average.state_dict() if session.average is not None else None,
        "processes": processes,
    }


def load_training(session: "Session", state: dict[str, Any]) -> None:
    """Put a session where `training_state` found it.

    Raises:
        TrainingError: the state is of another system, of other data, of another number of processes, or of networks of
            other sizes.
    """
    system, accelerator = session.system, session.accelerator
    if state["system"] != system.name:
        raise TrainingError(f"the checkpoint is of {state['system']}, not of {system.name}")
    if state["data_sha256"] != session.data.digest:
        raise TrainingError(
            "the training images are not those that this run was started with; put them back, or start a new run"
        )
    if len(state["processes"]) != accelerator.num_processes:
        raise TrainingError(
            f"the run was trained by {len(state['processes'])} processes, and this is {accelerator.num_processes}; "
            "start as many, or a new run"
        )
    try:
        for name, network in system.networks().items():
            unwrapped(network).load_state_dict(state["networks"][name])
        for name, optimizer in system.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
    except (KeyError, RuntimeError, ValueError):
        raise TrainingError(
            f"the checkpoint's {name} is not the one that settings.toml describes; put back what was changed there"
        ) from None
    if accelerator.scaler is not None and state["scaler"] is not None:
        accelerator.scaler.load_state_dict(state["scaler"])
    if session.average is not None:
        if state["average"] is None:
            session.average.restart(system.generator)
        else:
            session.average.load_state_dict(state["average"])
    session.step, session.seconds, session.best_loss = state["step"], state["seconds"], state["best_loss"]
    own = state["processes"][accelerator.process_index]
    system.load_training_state(own["system"], accelerator.device)
    session.tally.load_state_dict(own["tally"])
    _set_random_state(own["random"])


def _random_state() -> dict[str, Any]:
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


def _on_cpu(state: Any) -> Any:
    if isinstance(state, torch.Tensor):
        return state.cpu()
    if isinstance(state, dict):
        return {name: _on_cpu(value) for name, value in state.items()}
    return [_on_cpu(value) for value in state] if isinstance(state, list) else state
