"""Ray's token: whether this machine has one, how it is shown, and what is wrong where a Ray refuses it.

Ray is loaded by the functions that need it: `colorize doctor` looks for the token also where Ray does not load.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from colorize.errors import ClusterError, printable
from colorize.storage.place import local_path

MODE = "RAY_AUTH_MODE"
"""`token`: every process shows a token and asks for it; `disabled`: none does."""

TOKEN, TOKEN_PATH = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
"""The variables that hold the token and name its file; where both are set, the first one counts."""

_WHERE = f"{TOKEN}, {TOKEN_PATH} or ~/.ray/auth_token"


def token_file() -> Path:
    """The file in which this user's Ray looks for the token. Raises StorageError where it would be in a home folder, and there is none."""
    return Path(os.environ.get(TOKEN_PATH) or local_path("~/.ray/auth_token"))


def file_problem(path: Path) -> str | None:
    """Why the token cannot be read from a file, in a few words; None where it can."""
    try:
        return None if path.read_bytes().strip() else "it is empty"
    except OSError as error:
        return error.strerror or str(error)


def has_token() -> bool:
    """Whether this machine has a token, whatever RAY_AUTH_MODE says. Raises ClusterError where RAY_AUTH_TOKEN_PATH names a file without."""
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    with told():
        return bool(AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True))


def header() -> dict[str, str]:
    """The header that shows the token; empty where there is none, or RAY_AUTH_MODE says that there is to be none. Raises as `has_token`."""
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    if os.environ.get(MODE, "token").lower() != "token":
        return {}
    with told():
        shown = dict(AuthenticationTokenLoader.instance().get_token_for_http_header(ignore_auth_mode=True))
    if not all(value.isascii() and value.isprintable() for value in shown.values()):  # refused here, where it is not repeated
        raise ClusterError(_NO_TEXT)
    return shown


_NO_TEXT = f"Ray's token ({_WHERE}): is not one line of plain characters: copy it anew"


def use_token() -> bool:
    """Shows from now on the token that this machine has; False where it has none, or RAY_AUTH_MODE, the last word, says what is done.

    Ray's own `init` shows it only where that variable says so. A process that shows it asks for it as well, so where the cluster has none
    its workers would be refused, and the process would wait for them for ever. Raises as `has_token`.
    """
    from ray._raylet import Config  # type: ignore[attr-defined]

    if MODE in os.environ or not has_token():
        return False
    os.environ[MODE] = "token"
    Config.initialize("")
    return True


def problem() -> str:
    """Why a Ray refuses this machine, and what to do, after its name and a colon."""
    if os.environ.get(MODE, "token").lower() != "token":
        return f"this Ray asks for a token, and {MODE} says that none is shown: leave it out"
    try:
        found = has_token()
    except ClusterError as error:
        return str(error)
    if found:
        return f"this Ray has another token than this machine ({_WHERE}); its own: `ray get-auth-token` where it was started"
    return f"this Ray asks for a token, and this machine has none ({_WHERE}); its own: `ray get-auth-token` where it was started"


@contextmanager
def told() -> Iterator[None]:
    """What Ray raises for a token that cannot be read, as a ClusterError in one line."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except UnicodeDecodeError as error:
        raise ClusterError(_NO_TEXT) from error
    except AuthenticationError as error:
        path = os.environ.get(TOKEN_PATH)
        if not path or os.environ.get(TOKEN):
            raise ClusterError(f"Ray's token: there is none ({_WHERE}): `ray get-auth-token` where the cluster was started") from error
        why = file_problem(Path(path)) or "Ray cannot read it"
        raise ClusterError(f"{TOKEN_PATH} {printable(path)}: no token can be read there: {why}; name its file, or leave it out") from error
