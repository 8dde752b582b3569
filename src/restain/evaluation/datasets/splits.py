"""Parts for training and test that share no patient and no slide.

A split depends on names and a seed alone: on every machine, and with every version of NumPy, it is the same, so that
naming the seed publishes it.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from restain.errors import InputError
from restain.evaluation.datasets.item import Item

By = Literal["patient", "slide"]
Group = tuple[str, str]


def group_of(item: Item, by: By = "patient") -> Group:
    """What must not be torn apart: the item's patient, or its slide where the patient is not known or not asked for."""
    if by == "patient" and item.patient is not None:
        return "patient", item.patient
    return "slide", item.slide


def check_split(parts: Mapping[str, Iterable[Item]], by: By = "patient") -> None:
    """Raise `InputError` if a patient, or a slide, is in two parts."""
    where: dict[Group, str] = {}
    for name, items in parts.items():
        for item in items:
            for group in {group_of(item, by), ("slide", item.slide)}:
                other = where.setdefault(group, name)
                if other != name:
                    kind, which = group
                    raise InputError(
                        f"{kind} {which} is in both {other} and {name}: results would be too good; split by {by}"
                    )


def split_items(
    items: Sequence[Item], shares: Mapping[str, float], *, by: By = "patient", seed: int = 0
) -> dict[str, list[Item]]:
    """Split items into parts of about the given shares, no patient in two of them, labels as even as that allows.

    Args:
        items: of one data set.
        shares: wanted share of each part, above 0; they are scaled to sum 1.
        by: what is kept together; slides always are.
        seed: another seed, another split.

    Returns:
        Parts by name, each in the order of `items`.

    Raises:
        InputError: shares are not positive, or there are fewer patients than parts.
    """
    total = sum(shares.values())
    if not shares or min(shares.values()) <= 0:
        raise InputError(f"got shares {dict(shares)}; wanted a share above 0 for each part")
    groups = _joined(items, by)
    if len(groups) < len(shares):
        raise InputError(f"{len(items)} items of {len(groups)} {by}s cannot be split into {len(shares)} parts")
    # Large groups first, as small ones can then even out; equal ones in an order that nobody chose.
    ordered = sorted(groups, key=lambda members: (-len(members), _digest(seed, items[members[0]])))
    counts = Counter(item.label for item in items)
    lacking = {part: {label: shares[part] / total * n for label, n in counts.items()} for part in shares}
    chosen: dict[str, list[int]] = {part: [] for part in shares}
    for rank, members in enumerate(ordered):
        has = Counter(items[i].label for i in members)
        empty = [part for part in shares if not chosen[part]]
        # The last groups are kept for parts that are still empty.
        allowed = empty if len(empty) >= len(ordered) - rank else list(shares)
        part = max(allowed, key=lambda part: sum(n * lacking[part][label] / counts[label] for label, n in has.items()))
        chosen[part] += members
        for label, n in has.items():
            lacking[part][label] -= n
    split = {part: [items[i] for i in sorted(members)] for part, members in chosen.items()}
    check_split(split, by)
    return split


def make_folds(
    items: Sequence[Item], count: int = 5, *, by: By = "patient", seed: int = 0
) -> list[dict[str, list[Item]]]:
    """Folds of cross-validation: in each, "test" is another of `count` parts and "train" is the rest.

    Raises:
        InputError: as `split_items`; or fewer than two folds.
    """
    if count < 2:
        raise InputError(f"got {count} folds; wanted 2 or more")
    parts = split_items(items, {str(i): 1.0 for i in range(count)}, by=by, seed=seed)
    tested = [{id(item) for item in part} for part in parts.values()]
    return [
        {"train": [item for item in items if id(item) not in test], "test": [i for i in items if id(i) in test]}
        for test in tested
    ]


def owners_split(items: Iterable[Item], *, by: By = "patient", allow_leaks: bool = False) -> dict[str, list[Item]]:
    """The split that the owner published: items by their `split`; those without one are left out.

    Args:
        items: of one data set.
        by: what must not be in two parts.
        allow_leaks: return it even where patients are in two parts, for parity with papers that used it so.

    Raises:
        InputError: no item has a split, or patients are in two parts and that is not allowed.
    """
    parts: dict[str, list[Item]] = {}
    for item in items:
        if item.split is not None:
            parts.setdefault(item.split, []).append(item)
    if not parts:
        raise InputError("the owner of these items published no split; use split_items")
    if not allow_leaks:
        check_split(parts, by)
    return parts


def _joined(items: Sequence[Item], by: By) -> list[list[int]]:
    """Indices of the items that belong together: through a patient, a slide, or a chain of both."""
    home: dict[Group, int] = {}
    members: dict[int, list[int]] = {}
    for i, item in enumerate(items):
        keys = {group_of(item, by), ("slide", item.slide)}
        met = sorted({home[key] for key in keys if key in home})
        first = met[0] if met else i
        joined = sorted([i, *(index for old in met for index in members.pop(old))])
        members[first] = joined
        for index in joined:
            for key in (group_of(items[index], by), ("slide", items[index].slide)):
                home[key] = first
    return list(members.values())


def _digest(seed: int, item: Item) -> str:
    return hashlib.sha256(f"{seed}/{item.dataset}/{item.slide}/{item.path.name}".encode()).hexdigest()
