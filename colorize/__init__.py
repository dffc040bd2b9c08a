"""Colour for whole archives of black-and-white pictures, on Ray.

    from colorize import Colorizer, DecodeSettings, colorize_scan, load_model, open_scan

    colored = colorize_scan(open_scan(path), Colorizer(load_model("photo")), DecodeSettings(vividness=0.5))

Without settings vividness is 0, the most accurate colour; the commands that colour take 0.5.

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
    RemoteError,
    RunError,
    ScheduleError,
    ServiceError,
    StorageError,
)

if TYPE_CHECKING:
    from colorize.client.answers import Colored
    from colorize.client.asynchronous import AsyncClient
    from colorize.client.blocking import Client
    from colorize.imaging.formats import open_scan
    from colorize.model.coloring import colorize_scan, load_reference
    from colorize.model.colorizer import Colorizer
    from colorize.model.colormodel import ColorModel, load_model
    from colorize.model.hints import Hint, parse_hints
    from colorize.model.reference import Reference
    from colorize.model.settings import DecodeSettings
    from colorize.model.swatches import Swatches, load_swatches

__all__ = [
    "ArchiveError",
    "AsyncClient",
    "Client",
    "ClusterError",
    "ColorModel",
    "Colored",
    "ColorizeError",
    "Colorizer",
    "ConfigError",
    "DataError",
    "DecodeSettings",
    "Hint",
    "HintError",
    "ModelError",
    "PictureError",
    "Reference",
    "RemoteError",
    "RunError",
    "ScheduleError",
    "ServiceError",
    "StorageError",
    "Swatches",
    "colorize_scan",
    "load_model",
    "load_reference",
    "load_swatches",
    "open_scan",
    "parse_hints",
]

_HOMES = {
    "AsyncClient": "colorize.client.asynchronous",
    "Client": "colorize.client.blocking",
    "Colored": "colorize.client.answers",
    "ColorModel": "colorize.model.colormodel",
    "Colorizer": "colorize.model.colorizer",
    "DecodeSettings": "colorize.model.settings",
    "Hint": "colorize.model.hints",
    "Reference": "colorize.model.reference",
    "Swatches": "colorize.model.swatches",
    "colorize_scan": "colorize.model.coloring",
    "load_model": "colorize.model.colormodel",
    "load_reference": "colorize.model.coloring",
    "load_swatches": "colorize.model.swatches",
    "open_scan": "colorize.imaging.formats",
    "parse_hints": "colorize.model.hints",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
