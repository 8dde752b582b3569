"""Pixelwise normalizers, one a file, written once, in NumPy, on colours with counts."""

from restain.methods.acd import ACD
from restain.methods.base import Normalizer
from restain.methods.histogram import HistogramMatching
from restain.methods.khan import Khan
from restain.methods.lattice import Lattice
from restain.methods.macenko import Macenko
from restain.methods.reinhard import Reinhard
from restain.methods.reinhard_modified import ModifiedReinhard
from restain.methods.ruifrok import Ruifrok
from restain.methods.scan_approx import ScanApprox
from restain.methods.stainnet import StainNet
from restain.methods.vahadane import Vahadane

METHODS: dict[str, type[Normalizer]] = {
    "reinhard": Reinhard,
    "reinhard_modified": ModifiedReinhard,
    "histogram": HistogramMatching,
    "ruifrok": Ruifrok,
    "macenko": Macenko,
    "vahadane": Vahadane,
    "khan": Khan,
    "acd": ACD,
    "scan_approx": ScanApprox,
    "stainnet": StainNet,
    "lattice": Lattice,
}
"""Every method by its name on the command line and in saved files."""
