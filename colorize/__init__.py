"""Colour for whole archives of black-and-white pictures, on Ray.

    from colorize import Colorizer, colorize_scan, load_model, open_scan

    colored = colorize_scan(open_scan(path), Colorizer(load_model("photo")))

The names are loaded when they are first used: `import colorize` costs neither torch nor Ray.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from colorize.errors import (
    ArchiveError,
    ClusterError,
    ColorizeError,
    ConfigError,
    DataError,
    HintError,
    ModelError,
    PictureError,
    RunError,
    ServiceError,
)

if TYPE_CHECKING:
    from colorize.imaging.formats import open_scan
    from colorize.model.coloring import colorize_scan
    from colorize.model.colorizer import Colorizer
    from colorize.model.colormodel import ColorModel, load_model
    from colorize.model.hints import Hint, parse_hints
    from colorize.model.palette import DecodeSettings

__all__ = [
    "ArchiveError",
    "ClusterError",
    "ColorModel",
    "ColorizeError",
    "Colorizer",
    "ConfigError",
    "DataError",
    "DecodeSettings",
    "Hint",
    "HintError",
    "ModelError",
    "PictureError",
    "RunError",
    "ServiceError",
    "colorize_scan",
    "load_model",
    "open_scan",
    "parse_hints",
]

_HOMES = {
    "ColorModel": "colorize.model.colormodel",
    "Colorizer": "colorize.model.colorizer",
    "DecodeSettings": "colorize.model.palette",
    "Hint": "colorize.model.hints",
    "colorize_scan": "colorize.model.coloring",
    "load_model": "colorize.model.colormodel",
    "open_scan": "colorize.imaging.formats",
    "parse_hints": "colorize.model.hints",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
