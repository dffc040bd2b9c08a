"""URLs: what in them is secret, and what may be shown.

A user with a password, or a query with a key, opens a bucket for whoever reads the message, the file or the list of jobs in which the URL
stands. So a URL is shown without them, and one that has them is not kept.
"""

from __future__ import annotations

import re

from colorize.errors import printable

_PASSWORD = re.compile(r"(?<=://)(?:[^/?#\s]*:[^/?#\s]*|[^/?#\s@\[]*:(?!\d{1,5}(?:[/?#\s]|$))\S*)(?=@)")
"""A user and a password. The second form: a password that has a `/`, as every other key of AWS has; a port before a path is none."""

_KEY = re.compile(
    r"([?&;][^=&;\s]*(?:secret|passw|token|credential|signature|access_?key|account_?key|sas|sig)[^=&;\s]*=)[^&;\s]*", re.IGNORECASE
)
"""A part of the query with what opens something."""

WAY_OUT = "give it by environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), profile or role"
"""Where credentials belong."""


def has_secret(text: str) -> bool:
    """Whether a URL, or one of those in a text, has a password or a key in it."""
    return _PASSWORD.search(text) is not None or _KEY.search(text) is not None


def without_secrets(text: str) -> str:
    """A text with `…` in place of users and passwords, and of keys, of the URLs in it."""
    return _KEY.sub(r"\1…", _PASSWORD.sub("…", text))


def user_of(url: str) -> str:
    """What stands before the `@` of a URL: a user, or user and password; "" where there is neither."""
    if found := _PASSWORD.search(url):
        return found[0]
    return re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0].rpartition("@")[0]


def redacted(text: str) -> str:
    """A URL without user, key and query; a path as it is, on one line."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        return printable(text)
    user = user_of(text)
    path = rest[len(user) + 1 :] if user else rest
    return printable(f"{scheme}://{path.partition('?')[0]}")
