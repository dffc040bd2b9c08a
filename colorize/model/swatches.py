"""Swatches: a house or a period palette, and how it shifts what the network predicts.

Knows nothing of networks. A network's distribution stands for the colours of its training data, whose shares are the prior π. Where
other colours are to be expected, with shares t, Bayes' rule turns p_k into p_k · t_k / π_k, normalised (Saerens, Latinne and Decaestecker
2002): what the network has seen in the picture still counts, what the palette lacks becomes rare. Each swatch counts for pixels of
about its own lightness, so a palette can have warm lights and cool shadows. A share of π is always left in t, so that nothing is ever
forbidden: a palette without green does not turn a meadow red where the network is sure of it.

The palettes that ship are JSON files beside this module, in the form that a user's own has:

    {"about": "one line", "colors": [{"color": "#c04020", "weight": 2}, …]}
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from colorize.errors import HintError
from colorize.model.hints import LONGEST_DOCUMENT, kind_of, number_of, parse_color, parse_json, shown

if TYPE_CHECKING:
    from colorize.model.palette import Palette

MOST_COLORS = 256
HEAVIEST = 1e6

SHIPPED = Path(__file__).parent / "palettes"

REACH_AB = 12.0
"""How far a swatch's colour reaches, as a standard deviation in ab units."""

REACH_L = 25.0
"""How far it reaches in lightness."""

REST = 0.05
"""The share of the training data's own colours that stays: a bin can become at most 20 times rarer."""

MOST = 4.0
"""A bin can become at most this many times likelier: without that, vivid palettes, of rare bins, painted faces red."""


@dataclass(frozen=True, kw_only=True)
class Swatches:
    """A palette: colours with their weights. Equal where name and content are."""

    name: str
    lab: tuple[tuple[float, float, float], ...]
    """L, a and b of each colour."""
    weights: tuple[float, ...]
    """Positive, of any sum."""
    about: str = field(default="", compare=False)

    @cached_property
    def digest(self) -> str:
        """Of the colours and weights, not of the name: 12 hexadecimal digits."""
        return hashlib.sha256(repr((self.lab, self.weights)).encode()).hexdigest()[:12]

    def bias(self, palette: Palette, L_bhw: Tensor) -> Tensor:
        """What is added to log-probabilities: log(t/π) of every bin at every pixel, (b, K, h, w). L_bhw: lightness 0…100."""
        lab_s3 = torch.tensor(self.lab, device=L_bhw.device)
        share_s = torch.tensor(self.weights, device=L_bhw.device)
        near_sk = torch.cdist(lab_s3[:, 1:], palette.bins_k2).square().div(-2 * REACH_AB**2).exp() * palette.prior_k.sqrt()
        near_sk = near_sk / near_sk.sum(1, keepdim=True).clamp_min(1e-9)
        weight_bshw = (L_bhw[:, None] - lab_s3[:, :1, None]).square().div(-2 * REACH_L**2).exp() * share_s[:, None, None]
        weight_bshw = weight_bshw / weight_bshw.sum(1, keepdim=True).clamp_min(1e-9)
        wanted_bkhw = torch.einsum("bshw,sk->bkhw", weight_bshw, near_sk)
        prior_k11 = palette.prior_k[:, None, None]
        return ((1 - REST) * wanted_bkhw / prior_k11 + REST).clamp_max(MOST).log()


def parse_swatches(document: str | bytes, *, name: str = "palette") -> Swatches:
    """A palette from JSON: `{"colors": [{"color": "#rrggbb", "weight": 1}, …]}`, 1 to 256 colours; a weight that is not given is 1.

    `name` is what messages call it. Raises HintError, one line, for anything else.
    """
    found = parse_json(document, name)
    if not isinstance(found, dict) or not isinstance(found.get("colors"), list):
        raise HintError(f'{name}: must look like {{"colors": [{{"color": "#c04020", "weight": 1}}, …]}}')
    if unknown := sorted(set(found) - {"about", "colors"}):
        raise HintError(f"{name}: has an unknown field {shown(unknown[0])}; there are about and colors")
    about, colors = found.get("about", ""), found["colors"]
    if not isinstance(about, str):
        raise HintError(f"{name}: about: must be a string, not {kind_of(about)}")
    if not 1 <= len(colors) <= MOST_COLORS:
        raise HintError(f"{name}: has {len(colors):,} colors: 1 to {MOST_COLORS} are taken")
    lab, weights = [], []
    for number, one in enumerate(colors, 1):
        where = f"{name}: color {number}"
        if not isinstance(one, dict) or "color" not in one or set(one) - {"color", "weight"}:
            raise HintError(f'{where}: must look like {{"color": "#c04020", "weight": 1}}')
        weight = number_of(one.get("weight", 1), where, "weight")
        if not 0 < weight <= HEAVIEST:
            raise HintError(f"{where}: weight {weight:g}: must be above 0 and at most {HEAVIEST:,.0f}")
        lab.append(parse_color(one["color"], where))
        weights.append(weight)
    return Swatches(name=name, lab=tuple(lab), weights=tuple(weights), about=about)


def shipped_palettes() -> list[str]:
    """The names of the palettes that ship."""
    return sorted(path.stem for path in SHIPPED.glob("*.json"))


def load_swatches(name_or_path: str | Path) -> Swatches:
    """A palette that ships, by its name, or one from a JSON file. Raises HintError, one line."""
    name = str(name_or_path)
    is_shipped = name in shipped_palettes()
    path = SHIPPED / f"{name}.json" if is_shipped else Path(name_or_path)
    return parse_swatches(read_document(path, f"no such file; the palettes that ship: {', '.join(shipped_palettes())}"), name=name)


def read_document(path: Path, missing: str = "there is no such file") -> bytes:
    """A small file that a user gives, hints or a palette; one byte more than is allowed where it is too long. Raises HintError."""
    try:
        if path.exists() and not path.is_file():  # reading a pipe could wait for ever
            raise HintError(f"{path}: is not a regular file")
        with path.open("rb") as file:
            return file.read(LONGEST_DOCUMENT + 1)
    except FileNotFoundError as error:
        raise HintError(f"{path}: {missing}") from error
    except HintError:
        raise
    except (OSError, ValueError) as error:
        raise HintError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
