"""Hints: colours that someone gives at points of a picture, and what of them the network is shown.

Knows nothing of networks. A hint's place is a share of the upright page's sides, so that it is the same for the original and for the
small picture that the network sees. Hints come as JSON, in pixels of the upright original; how they spread from there is told in `spread`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from colorize.errors import HintError
from colorize.imaging.colorspace import rgb_to_lab
from colorize.imaging.upsample import Point

MOST_HINTS = 1_000
"""For one picture."""

LONGEST_DOCUMENT = 1_000_000
"""Bytes or characters of JSON; 1,000 hints take some 50,000."""

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_FIELDS = ("x", "y", "color")


class Hint(Point):
    """One colour that is given, at a place of the upright page."""


def parse_hints(document: str | bytes, *, width: int, height: int, name: str = "hints") -> tuple[Hint, ...]:
    """Hints for an upright picture of `width`×`height` pixels, in the document's order.

    document: JSON, a list of at most 1,000 objects `{"x": 12, "y": 34, "color": "#c04020"}`, x and y in pixels from the upper left
    corner, each within the picture. `name` is what messages call it. Raises HintError, one line, for anything else.
    """
    listed = parse_json(document, name)
    if not isinstance(listed, list):
        raise HintError(f'{name}: must be a list of hints, [{{"x": 12, "y": 34, "color": "#c04020"}}, …], not {kind_of(listed)}')
    if len(listed) > MOST_HINTS:
        raise HintError(f"{name}: has {len(listed):,} hints: at most {MOST_HINTS:,} are taken")
    return tuple(_hint(one, width, height, f"{name}: hint {number}") for number, one in enumerate(listed, 1))


def parse_json(document: str | bytes, name: str) -> Any:
    """What a JSON document of at most a megabyte holds; NaN and infinities are no JSON. Raises HintError, one line."""
    if len(document) > LONGEST_DOCUMENT:
        raise HintError(f"{name}: is {len(document):,} bytes long: at most {LONGEST_DOCUMENT:,} are read")
    try:
        return json.loads(document, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise HintError(f"{name}: is not JSON: it is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise HintError(f"{name}: is not JSON: {error.msg} in line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise HintError(f"{name}: is not a list of hints: it is nested too deeply") from error
    except ValueError as error:
        raise HintError(f"{name}: is not JSON: a number of it is out of range") from error


def parse_color(text: Any, name: str) -> tuple[float, float, float]:
    """L, a and b of an sRGB colour, `#rrggbb`. Raises HintError."""
    if not isinstance(text, str) or not _COLOR.fullmatch(text):
        raise HintError(f"{name}: color {shown(text)}: must look like #c04020")
    rgb_1311 = torch.tensor(list(bytes.fromhex(text[1:])), dtype=torch.uint8).view(1, 3, 1, 1)
    lightness, a, b = rgb_to_lab(rgb_1311).flatten().tolist()
    return lightness, a, b


def number_of(value: Any, name: str, what: str) -> float:
    """A finite number. Raises HintError."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15:  # NaN compares false
        return float(value)
    raise HintError(f"{name}: {what} {shown(value)}: must be a number")


def kind_of(value: Any) -> str:
    """What JSON calls it."""
    return {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}.get(type(value), "a number")


def shown(value: Any) -> str:
    """A value in a message: its JSON, shortened, on one line."""
    text = str(value) if isinstance(value, float) else kind_of(value) if isinstance(value, dict | list) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def hint_planes(hints: Sequence[Hint], height: int, width: int) -> Tensor:
    """What a network of that input size is shown: (3, height, width), ab and mask, each hint in the pixel that it lies in.

    Of two in the same pixel the later one counts.
    """
    planes_3hw = torch.zeros(3, height, width)
    for hint in hints:
        row, column = min(int(hint.down * height), height - 1), min(int(hint.across * width), width - 1)
        planes_3hw[:, row, column] = torch.tensor([*hint.ab, 1.0])
    return planes_3hw


def _hint(value: Any, width: int, height: int, name: str) -> Hint:
    if not isinstance(value, dict):
        raise HintError(f'{name}: must be an object like {{"x": 12, "y": 34, "color": "#c04020"}}, not {kind_of(value)}')
    if missing := [field for field in _FIELDS if field not in value]:
        raise HintError(f"{name}: has no {missing[0]}")
    if unknown := sorted(set(value) - set(_FIELDS)):
        raise HintError(f"{name}: has an unknown field {shown(unknown[0])}; there are x, y and color")
    x, y = (number_of(value[field], name, field) for field in ("x", "y"))
    if not (0 <= x < width and 0 <= y < height):
        raise HintError(f"{name}: ({x:g}, {y:g}) lies outside the picture, which is {width}×{height} upright")
    _, a, b = parse_color(value["color"], name)
    return Hint(across=(math.floor(x) + 0.5) / width, down=(math.floor(y) + 0.5) / height, ab=(a, b))


def _no_number(text: str) -> float:
    raise ValueError(text)
