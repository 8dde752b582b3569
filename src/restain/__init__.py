"""restain: stained tissue in one reference appearance.

The public names; each is imported on first use, so `import restain` costs little.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restain.color.colormap import ColorMap
    from restain.color.histogram import ColorHistogram
    from restain.methods import METHODS
    from restain.methods.base import Appearance, Normalizer, load
    from restain.methods.histogram import HistogramMatching
    from restain.methods.macenko import Macenko
    from restain.methods.reinhard import Reinhard
    from restain.methods.reinhard_modified import ModifiedReinhard
    from restain.methods.ruifrok import Ruifrok
    from restain.methods.separation import Separation, Separator, separate
    from restain.methods.vahadane import Vahadane
    from restain.phantom import Phantom, Scanner, make_phantom
    from restain.profiles import load_profile, profile_names
    from restain.slides.pipeline import normalize_slide
    from restain.slides.reader import open_slide
    from restain.slides.virtual import NormalizedSlide

__version__ = "0.1.0"

_HOMES = {
    "Appearance": "restain.methods.base",
    "ColorHistogram": "restain.color.histogram",
    "ColorMap": "restain.color.colormap",
    "HistogramMatching": "restain.methods.histogram",
    "METHODS": "restain.methods",
    "Macenko": "restain.methods.macenko",
    "ModifiedReinhard": "restain.methods.reinhard_modified",
    "NormalizedSlide": "restain.slides.virtual",
    "Normalizer": "restain.methods.base",
    "Phantom": "restain.phantom",
    "Reinhard": "restain.methods.reinhard",
    "Ruifrok": "restain.methods.ruifrok",
    "Scanner": "restain.phantom",
    "Separation": "restain.methods.separation",
    "Separator": "restain.methods.separation",
    "Vahadane": "restain.methods.vahadane",
    "load": "restain.methods.base",
    "load_profile": "restain.profiles",
    "make_phantom": "restain.phantom",
    "normalize_slide": "restain.slides.pipeline",
    "open_slide": "restain.slides.reader",
    "profile_names": "restain.profiles",
    "separate": "restain.methods.separation",
}

__all__ = [
    "METHODS",
    "Appearance",
    "ColorHistogram",
    "ColorMap",
    "HistogramMatching",
    "Macenko",
    "ModifiedReinhard",
    "NormalizedSlide",
    "Normalizer",
    "Phantom",
    "Reinhard",
    "Ruifrok",
    "Scanner",
    "Separation",
    "Separator",
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
