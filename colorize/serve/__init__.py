"""Ray Serve: one application of two deployments that colours the pictures it is sent, and the command that runs it.

`serve run colorize.serve:app` and `serve deploy` find the application's builder here; it is loaded when it is asked for.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from colorize.serve.application import build

    return build
