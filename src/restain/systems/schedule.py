"""How a learning rate changes over epochs: pure functions of the epoch, so that nothing has to be saved of them."""

import math
from typing import Literal, get_args

from restain.errors import InputError

Schedule = Literal["constant", "linear", "cosine"]


def learning_rate_factor(schedule: Schedule, epoch: int, epochs: int, decay_epochs: int = 0) -> float:
    """What the initial learning rate is multiplied by in an epoch.

    Args:
        schedule: "constant"; "linear", constant for `epochs`, then falling in equal steps over `decay_epochs`, which
            it would end at 0 one epoch later (so the last epoch still learns); "cosine", ½(1 + cos(π·epoch/total)).
        epoch: from 0.
        epochs: epochs before the decay.
        decay_epochs: epochs of the decay; of "cosine" and "constant", epochs like others.

    Returns:
        A factor in 0..1.
    """
    if schedule not in get_args(Schedule):
        raise InputError(f"got schedule={schedule!r}; wanted one of {', '.join(get_args(Schedule))}")
    if schedule == "linear":
        return 1.0 - max(0, epoch + 1 - epochs) / (decay_epochs + 1)
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * epoch / max(epochs + decay_epochs, 1)))
    return 1.0
