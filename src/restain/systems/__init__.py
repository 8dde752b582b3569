"""Systems: trainable normalizers, one paper a file. `SYSTEMS` names them all."""

from collections.abc import Mapping
from types import MappingProxyType

from restain.systems.base import System
from restain.systems.chen import Chen
from restain.systems.dstgan import DSTGAN
from restain.systems.nst import NST
from restain.systems.staingan import StainGAN
from restain.systems.stainnet import StainNetStudent
from restain.systems.stst import STST

SYSTEMS: Mapping[str, type[System]] = MappingProxyType(
    {
        "staingan": StainGAN,
        "stainnet": StainNetStudent,
        "stst": STST,
        "chen": Chen,
        "dstgan": DSTGAN,
        "nst": NST,
    }
)
"""Every system by the name that `restain train` and files know it by."""

__all__ = ["SYSTEMS", "System"]
