"""restain: stained tissue in one reference appearance.

The public names; each is imported on first use, so `import restain` costs little.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restain.color.colormap import ColorMap
    from restain.color.histogram import ColorHistogram
    from restain.methods import METHODS
    from restain.methods.acd import ACD
    from restain.methods.base import Appearance, Normalizer
    from restain.methods.histogram import HistogramMatching
    from restain.methods.khan import Khan
    from restain.methods.lattice import Lattice
    from restain.methods.macenko import Macenko
    from restain.methods.reinhard import Reinhard
    from restain.methods.reinhard_modified import ModifiedReinhard
    from restain.methods.ruifrok import Ruifrok
    from restain.methods.scan_approx import ScanApprox
    from restain.methods.separation import Separation, Separator, separate
    from restain.methods.stainnet import StainNet
    from restain.methods.vahadane import Vahadane
    from restain.phantom import Phantom, Scanner, make_phantom
    from restain.profiles import load_profile, profile_names
    from restain.saved import load
    from restain.slides.pipeline import normalize_slide
    from restain.slides.reader import open_slide
    from restain.slides.virtual import NormalizedSlide

__version__ = "0.1.0"

_HOMES = {
    "ACD": "restain.methods.acd",
    "Appearance": "restain.methods.base",
    "ColorHistogram": "restain.color.histogram",
    "ColorMap": "restain.color.colormap",
    "HistogramMatching": "restain.methods.histogram",
    "Khan": "restain.methods.khan",
    "Lattice": "restain.methods.lattice",
    "METHODS": "restain.methods",
    "Macenko": "restain.methods.macenko",
    "ModifiedReinhard": "restain.methods.reinhard_modified",
    "NormalizedSlide": "restain.slides.virtual",
    "Normalizer": "restain.methods.base",
    "Phantom": "restain.phantom",
    "Reinhard": "restain.methods.reinhard",
    "Ruifrok": "restain.methods.ruifrok",
    "ScanApprox": "restain.methods.scan_approx",
    "Scanner": "restain.phantom",
    "Separation": "restain.methods.separation",
    "Separator": "restain.methods.separation",
    "StainNet": "restain.methods.stainnet",
    "Vahadane": "restain.methods.vahadane",
    "load": "restain.saved",
    "load_profile": "restain.profiles",
    "make_phantom": "restain.phantom",
    "normalize_slide": "restain.slides.pipeline",
    "open_slide": "restain.slides.reader",
    "profile_names": "restain.profiles",
    "separate": "restain.methods.separation",
}

__all__ = [
    "ACD",
    "METHODS",
    "Appearance",
    "ColorHistogram",
    "ColorMap",
    "HistogramMatching",
    "Khan",
    "Lattice",
    "Macenko",
    "ModifiedReinhard",
    "NormalizedSlide",
    "Normalizer",
    "Phantom",
    "Reinhard",
    "Ruifrok",
    "ScanApprox",
    "Scanner",
    "Separation",
    "Separator",
    "StainNet",
    "Vahadane",
    "__version__",
    "load",
    "load_profile",
    "make_phantom",
    "normalize_slide",
    "open_slide",
    "profile_names",
    "separate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'restain' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
