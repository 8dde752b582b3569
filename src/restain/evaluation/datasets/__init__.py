"""Public data sets in the layouts their owners ship, as plain lists of items; pairs; splits; patches. No pixels.

`DATASETS` has the reader of each layout, from a folder to a list of `Item`; `PROTOCOLS` the experiments of the papers,
from a folder to a `Protocol`.
"""

from collections.abc import Callable, Mapping

from restain.evaluation.datasets.bach import list_bach
from restain.evaluation.datasets.camelyon import list_camelyon16, list_camelyon17
from restain.evaluation.datasets.folders import list_folder
from restain.evaluation.datasets.glas import list_glas
from restain.evaluation.datasets.item import Item
from restain.evaluation.datasets.mitos import list_mitos
from restain.evaluation.datasets.pairs import Pair, pair_folders, read_pairs, write_pairs
from restain.evaluation.datasets.protocols import (
    Protocol,
    dstgan_bach,
    dstgan_glas,
    dstgan_mitos,
    dstgan_tupac,
    stainnet_camelyon,
    stainnet_mitos,
    stst_mitos,
)
from restain.evaluation.datasets.tupac import list_tupac

DATASETS: Mapping[str, Callable[..., list[Item]]] = {
    "mitos": list_mitos,
    "tupac": list_tupac,
    "bach": list_bach,
    "glas": list_glas,
    "camelyon16": list_camelyon16,
    "camelyon17": list_camelyon17,
    "folder": list_folder,
}

PROTOCOLS: Mapping[str, Callable[..., Protocol]] = {
    "stainnet-mitos": stainnet_mitos,
    "stainnet-camelyon": stainnet_camelyon,
    "stst-mitos": stst_mitos,
    "dstgan-mitos": dstgan_mitos,
    "dstgan-tupac": dstgan_tupac,
    "dstgan-bach": dstgan_bach,
    "dstgan-glas": dstgan_glas,
}

__all__ = ["DATASETS", "PROTOCOLS", "Item", "Pair", "Protocol", "pair_folders", "read_pairs", "write_pairs"]
