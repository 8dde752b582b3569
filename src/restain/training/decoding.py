"""Decoding ahead: batches are cut by other processes while a network computes, or by this one where all is decoded."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from restain.errors import RestainError
from restain.training.cutting import Batch, Cutter, Request


class Decoder:
    """Cuts what is requested, in that order; its processes outlive an epoch."""

    def __init__(self, cutter: Cutter, workers: int, *, pin_memory: bool = False) -> None:
        """Nothing is started before it is needed.

        Args:
            cutter: cuts a batch.
            workers: processes; 0 to cut between updates.
            pin_memory: whether batches are in page-locked memory.
        """
        self._cutter, self._workers, self._pin = cutter, workers, pin_memory
        self._loader: DataLoader[Any] | None = None
        self._requests = _Requests()

    def decode(self, requests: Iterator[Request]) -> Iterator[Batch | RestainError]:
        """The batches, or what went wrong; one iterator at a time.

        Raises:
            RestainError: a process has died.
        """
        if not self._workers:
            for request in requests:
                batch = self._cutter[request]
                pin = self._pin and not isinstance(batch, RestainError)
                yield {name: values.pin_memory() for name, values in batch.items()} if pin else batch  # type: ignore[union-attr]
            return
        if self._loader is None:
            self._loader = DataLoader(
                self._cutter,
                batch_size=None,  # a request is a whole batch already
                sampler=self._requests,
                num_workers=self._workers,
                collate_fn=_as_it_is,
                worker_init_fn=_hear_the_trainer,
                prefetch_factor=2,
                persistent_workers=True,
                pin_memory=self._pin,
                generator=torch.Generator(),  # else it would take a number from torch's own at every epoch
            )
        self._requests.now = requests
        try:
            yield from self._loader
        except RuntimeError as error:  # killed, mostly for lack of memory, in the machine or in /dev/shm
            reason = str(error).strip().partition("\n")[0]
            raise RestainError(
                f"a decoding process failed ({reason}); set workers lower, or to 0 to see why"
            ) from error

    def close(self) -> None:
        """End the processes."""
        self._loader = None


class _Requests(Sampler[Any]):
    """What the worker processes are to cut next; set before each epoch, as they outlive it."""

    def __init__(self) -> None:
        self.now: Iterator[Request] = iter(())

    def __iter__(self) -> Iterator[Request]:
        return self.now


def _as_it_is(batch: Any) -> Any:
    return batch


def _hear_the_trainer(number: int) -> None:
    """Make a decoding process deaf to a terminal's Ctrl-C and a cluster's SIGTERM, which go to every process: the one
    that trains hears them, wants batches until its update is done, and then ends these."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    trainer = multiprocessing.parent_process()
    if hasattr(signal, "sigwaitinfo") and trainer is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey, args=(trainer.pid,), daemon=True).start()


def _obey(trainer: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer:
        pass
    os._exit(0)
