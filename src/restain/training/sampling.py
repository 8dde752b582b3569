"""Which picture comes when, and which are kept for validation: index arithmetic, nothing is read.

Everything is a pure function of a seed, an epoch and names. So runs can be resumed anywhere, sharded over processes
and repeated on other machines, and whatever the number of workers the same samples come.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restain.errors import InputError

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """The samples of one epoch for one list of pictures."""

    pictures: Indices
    """(N,) which picture each sample is cut from."""
    blank: NDArray[np.int8]
    """(N,) 1 where the crop is to be blank, 0 where it is to show tissue, -1 where it may be either."""


def draw_order(seed: Sequence[int], length: int, count: int) -> Indices:
    """`count` indices into a list: all of it in a random order, then all again in another, and so on.

    Args:
        seed: integers ≥ 0 that name this order: the run's seed, the epoch, the list.
        length: of the list, 1 or more.
        count: how many are wanted.
    """
    rounds = range(-(-count // length))
    orders = [np.random.default_rng([*seed, k]).permutation(length) for k in rounds]
    return np.concatenate([*orders, np.empty(0, np.int64)])[:count].astype(np.int64)


def plan_epoch(
    seed: Sequence[int],
    length: int,
    count: int,
    *,
    blank_share: float | None = None,
    tissue: Indices | None = None,
    blank: Indices | None = None,
) -> Plan:
    """Plan the samples of one epoch.

    Without `blank_share` each picture comes once (a longer epoch starts again in another order). With it, that share of
    the samples, rounded up or down by chance, comes from the pictures that have blank places and the rest from those
    that have tissue, each in an order of its own.

    Args:
        seed: integers ≥ 0 that name the plan.
        length: number of pictures.
        count: samples wanted.
        blank_share: 0..1, or None.
        tissue: indices of the pictures in which a crop can show tissue; for `blank_share`.
        blank: indices of the pictures in which a crop can be blank; for `blank_share`.
    """
    if blank_share is None or tissue is None or blank is None:
        return Plan(draw_order([*seed, 0], length, count), np.full(count, -1, np.int8))
    generator = np.random.default_rng([*seed, 1])
    blanks = int(blank_share * count + generator.uniform())
    is_blank = generator.permutation(count) < blanks
    pictures = np.empty(count, np.int64)
    for kind, places, part in ((2, blank, is_blank), (3, tissue, ~is_blank)):
        if part.any():
            pictures[part] = places[draw_order([*seed, kind], len(places), int(part.sum()))]
    return Plan(pictures, is_blank.astype(np.int8))


def shard(batch: int, size: int, rank: int, world: int) -> range:
    """The samples of one global batch that one of several processes takes; together they take each once.

    Args:
        batch: number of the batch in its epoch.
        size: samples of a global batch, a multiple of `world`.
        rank: number of the process.
        world: number of processes.
    """
    if not 0 <= rank < world:
        raise InputError(f"got rank {rank} of {world} processes; wanted 0 to {world - 1}")
    if size % world:
        raise InputError(
            f"a batch of {size} cannot be shared evenly by {world} processes; make the batch a multiple of {world}"
        )
    part = size // world
    return range(batch * size + rank * part, batch * size + (rank + 1) * part)


def choose_validation(groups: Mapping[str, Sequence[str]], share: float, seed: int) -> set[str]:
    """Choose whole groups for validation, in an order that depends on their names and the seed alone.

    A group of the same name in two lists is one group: the same slide by two scanners is never torn apart.

    Args:
        groups: for each list of pictures, the group of each picture.
        share: wanted share of the pictures of each list, 0 to below 1.
        seed: another seed, another choice.

    Returns:
        Names of groups: about `share` of the pictures of each list; at least one group, never all, of each list that
        has two or more; none where `share` is 0.
    """
    if share <= 0:
        return set()
    sizes = {role: Counter(names) for role, names in groups.items()}
    wanted = {role: share * sum(count.values()) for role, count in sizes.items()}
    taken = dict.fromkeys(sizes, 0)
    left = {role: len(count) for role, count in sizes.items()}
    chosen: set[str] = set()
    for name in sorted({name for count in sizes.values() for name in count}, key=lambda name: _digest(seed, name)):
        here = {role: count[name] for role, count in sizes.items() if name in count}
        # Half a group too many is nearer to the share than half a group too few.
        lacking = any(not taken[r] or taken[r] + size / 2 <= wanted[r] for r, size in here.items() if len(sizes[r]) > 1)
        if lacking and all(left[role] > 1 for role in here):
            chosen.add(name)
            for role, size in here.items():
                taken[role] += size
                left[role] -= 1
    return chosen


def stable_order(names: Sequence[Any], seed: int) -> list[int]:
    """Indices of names, shuffled in a way that depends on each name and the seed, not on the other names."""
    return sorted(range(len(names)), key=lambda i: (_digest(seed, str(names[i])), str(names[i])))


def _digest(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()
