"""When a call is made again, and after how long. Knows nothing of HTTP: it is told what Retry-After said, in seconds.

Exponential back-off from 0.5 s to 20 s, of which a random half is left out, so that clients that were refused together do not come back
together. Retry-After is the least that is waited; the random part comes on top of it. Eight attempts take about 40 s where nobody says
how long to wait: more than the 3 to 30 s in which Serve replaces a replica that died.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from colorize.errors import ConfigError

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often, and for how long, a call is tried."""

    attempts: int = 8
    """At most, the first one included; 1 never tries again."""

    patience: float = 120.0
    """Seconds since the first attempt began, after which no other one begins."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigError(f"attempts {self.attempts}: must be 1 or more")
        if not 0 <= self.patience < float("inf"):
            raise ConfigError(f"patience {self.patience}: must be 0 s or more, and finite")


@dataclass(kw_only=True)
class Attempts:
    """The attempts of one call; it begins when this is made."""

    policy: RetryPolicy
    made: int = 1
    """The first one included."""
    _began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since the first attempt began."""
        return time.monotonic() - self._began

    def pause(self, retry_after: float = 0.0) -> float | None:
        """Seconds to wait before the next attempt, which counts as made; None: there is to be no other."""
        if self.made >= self.policy.attempts:
            return None
        longest = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** (self.made - 1))
        jitter = random.uniform(longest / 2, longest)
        seconds = retry_after + jitter / 2 if retry_after > 0 else jitter
        if self.seconds + seconds > self.policy.patience:
            return None
        self.made += 1
        return seconds


def retry_after_seconds(header: str | None) -> float:
    """What a Retry-After header asks for (RFC 9110, 10.2.3: seconds or a date); 0 where it is missing, past or makes no sense."""
    if header is None:
        return 0.0
    text = header.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        then = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return max(0.0, (then - datetime.now(UTC)).total_seconds())
