"""What a check found: the thing, how it stands, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "wrong"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the screen."""

    check: str
    """What was looked at, in a word or two."""
    status: Status
    """`warning`: it works, and worse than it could or less safely. `wrong`: something does not work, or is open to strangers."""
    found: str
    """What is so, with its numbers."""
    advice: str = ""
    """What to do; empty where nothing is to be done."""
