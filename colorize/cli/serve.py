"""`colorize serve`: the HTTP service, until it is stopped."""

from __future__ import annotations

import threading
from typing import Annotated

import typer

from colorize.cli.train import ADDRESS
from colorize.model.card import DEFAULT_MODEL


def serve(
    model: Annotated[str, typer.Option(help="A shipped model's name, a model file, or a training run's directory.")] = DEFAULT_MODEL,
    port: Annotated[int, typer.Option(help="The port on 127.0.0.1.")] = 8000,
    address: Annotated[str | None, ADDRESS] = None,
) -> None:
    """Answer pictures sent by HTTP in colour, until Ctrl-C.

    POST a JPEG or PNG to /v1/colorize (?vividness=0…1): the answer is the same picture in colour.
    """
    from colorize.cli.display import console
    from colorize.serve.config import ServeConfig
    from colorize.serve.run import running

    with running(ServeConfig(model=model), port=port, address=address) as service:
        try:
            console.print(service.cluster.describe())
            console.print(f"Ready: {service.url}  (model {service.model}; POST a picture to /v1/colorize; Ctrl-C stops it)")
            threading.Event().wait()
        except KeyboardInterrupt:  # how a service ends, and no failure
            console.print("stopping")
