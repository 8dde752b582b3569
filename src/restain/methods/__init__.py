"""Pixelwise normalizers, one a file, written once, in NumPy, on colours with counts."""

from restain.methods.base import Normalizer
from restain.methods.histogram import HistogramMatching
from restain.methods.macenko import Macenko
from restain.methods.reinhard import Reinhard
from restain.methods.reinhard_modified import ModifiedReinhard
from restain.methods.ruifrok import Ruifrok
from restain.methods.vahadane import Vahadane

METHODS: dict[str, type[Normalizer]] = {
    "reinhard": Reinhard,
    "reinhard_modified": ModifiedReinhard,
    "histogram": HistogramMatching,
    "ruifrok": Ruifrok,
    "macenko": Macenko,
    "vahadane": Vahadane,
}
"""Every method by its name on the command line and in saved files."""
