"""API keys: kept as SHA-256 digests only, compared in constant time, each with a token bucket.

Knows nothing of HTTP. Keys are random strings and no passwords, so one round of SHA-256 is enough: there is nothing to guess that a
slow hash would protect. `openssl rand -hex 24` makes one.
"""

import hashlib
import hmac
import re
import time
from collections.abc import Callable

from colorize.errors import ConfigError

API_KEYS = "COLORIZE_API_KEYS"
"""The environment variable: keys or `sha256:HEX` digests of keys, with commas between them."""

SHORTEST_KEY = 16
"""Characters: 64 bits, where they are hexadecimal."""

LONGEST_KEY = 512

_PREFIX = "sha256:"
_DIGEST = re.compile(f"{_PREFIX}[0-9a-f]{{64}}")


def hashed_keys(text: str) -> tuple[str, ...]:
    """The digests, `sha256:HEX`, of keys with commas between them. Raises ConfigError, which shows no key."""
    keys = [key.strip() for key in text.split(",") if key.strip()]
    return tuple(_hashed(key, number) for number, key in enumerate(keys, 1))


def digest_of(key: str) -> str:
    """`sha256:HEX` of a key."""
    return _PREFIX + hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def is_digest(text: str) -> bool:
    """Whether it is `sha256:HEX` of something."""
    return _DIGEST.fullmatch(text) is not None


def _hashed(key: str, number: int) -> str:
    if key.startswith(_PREFIX):
        digest = key.lower()
        if not is_digest(digest):
            raise ConfigError(f"{API_KEYS}: entry {number} is not sha256: and 64 hexadecimal digits")
        return digest
    if not SHORTEST_KEY <= len(key) <= LONGEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"{API_KEYS}: entry {number} must have {SHORTEST_KEY}…{LONGEST_KEY} printable ASCII characters, as `openssl rand -hex 24` gives"
        )
    return digest_of(key)


class TokenBucket:
    """A rate limit: `per_second` tokens flow in, `burst` are kept at most.

    What is taken may exceed what is there, once: a batch of 500 pictures is let in whole, and paid back before the next request.
    """

    def __init__(self, per_second: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._burst, self._clock = per_second, burst, clock
        self._tokens, self._seen = float(burst), clock()

    def seconds_to_wait(self) -> float:
        """Until there is a token; 0: now."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._seen) * self._per_second)
        self._seen = now
        return max(0.0, (1 - self._tokens) / self._per_second)

    def take(self, tokens: float) -> None:
        """Takes tokens, of which there may be fewer."""
        self._tokens -= tokens


class ApiKeys:
    """Who may ask, and how often."""

    def __init__(self, digests: tuple[str, ...], per_second: float, burst: float) -> None:
        """digests: `sha256:HEX`."""
        self._buckets = {digest: TokenBucket(per_second, burst) for digest in digests}

    def __bool__(self) -> bool:
        return bool(self._buckets)

    def bucket_of(self, key: str) -> TokenBucket | None:
        """The bucket of a key that a client sent; None where it is not one of them.

        Digests are compared, each with all, in constant time: how long it takes tells nothing of any key.
        """
        sent, found = digest_of(key[: LONGEST_KEY + 1]), None
        for digest, bucket in self._buckets.items():
            if hmac.compare_digest(sent, digest):
                found = bucket
        return found
