"""From the items of a data set to pairs: the same tissue by two scanners."""

from collections.abc import Iterable

from restain.errors import InputError
from restain.evaluation.datasets.item import Item
from restain.evaluation.datasets.pairs import Pair


def pair_items(items: Iterable[Item], source: str, target: str) -> list[Pair]:
    """Pair the items of two scanners that show the same tissue: one key, one magnification.

    Args:
        items: from a reader.
        source: the scanner of the sources.
        target: the scanner of the targets.

    Returns:
        Pairs in the order of the sources, named by magnification and key.

    Raises:
        InputError: two items of a scanner have one key, or no key is in both.
    """
    sides: dict[str, dict[tuple[str | None, str], Item]] = {source: {}, target: {}}
    for item in items:
        if item.pair is None or item.scanner not in sides:
            continue
        key = (item.magnification, item.pair)
        if key in sides[item.scanner]:
            raise InputError(f"{sides[item.scanner][key].path} and {item.path} are one picture, twice")
        sides[item.scanner][key] = item
    pairs = [
        Pair("/".join(part for part in key if part), item.path, sides[target][key].path, item.slide, item.patient)
        for key, item in sides[source].items()
        if key in sides[target]
    ]
    if not pairs:
        counts = ", ".join(f"{len(found)} of {name}" for name, found in sides.items())
        raise InputError(f"no picture is there by both scanners ({counts})")
    return pairs
