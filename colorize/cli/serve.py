"""`colorize serve`: the HTTP service, until it is stopped."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from colorize.cli.options import ADDRESS
from colorize.model.card import DEFAULT_MODEL


def serve(
    model: Annotated[str, typer.Option(help="A shipped model's name, a model file, or a training run's directory.")] = DEFAULT_MODEL,
    port: Annotated[int, typer.Option(help="The port.")] = 8000,
    host: Annotated[str, typer.Option(help="The IP address to listen on. Another than this machine's own needs API keys.")] = "127.0.0.1",
    models: Annotated[
        str | None, typer.Option(metavar="DIR", help="A folder of further models, for ?model=NAME.", show_default="those that ship")
    ] = None,
    archive_root: Annotated[
        list[str] | None,
        typer.Option(help="A folder or URL below which clients may start bulk runs; may be given again.", show_default="no bulk runs"),
    ] = None,
    address: Annotated[str | None, ADDRESS] = None,
) -> None:
    """Answer pictures sent by HTTP in colour, until Ctrl-C.

    POST a picture to /v1/colorize (?vividness=0…1): the answer is the same picture in colour. COLORIZE_API_KEYS holds the keys of
    which a client must send one, with commas between them: keys, or their digests as sha256:HEX.
    """
    from colorize.cli.display import console
    from colorize.errors import ConfigError
    from colorize.serve.config import ServeConfig
    from colorize.serve.roots import Roots
    from colorize.serve.run import running

    # An empty name is none, though it would be a path: that of the current directory.
    if models is not None and not (models and Path(models).is_dir()):
        raise ConfigError(f"--models {models or repr(models)}: is no folder")
    roots = tuple(root if "://" in root or not root else str(Path(root).absolute()) for root in archive_root or ())
    Roots(roots)  # as an error of one line, which pydantic's is not
    config = ServeConfig(model=model, models_dir=None if models is None else str(Path(models).absolute()), archive_roots=roots)
    with running(config, port=port, host=host, address=address) as service:
        try:
            console.print(service.cluster.describe())
            console.print(f"Ready: {service.url}  (model {service.model}; POST a picture to /v1/colorize; Ctrl-C stops it)")
            while True:
                time.sleep(1)  # and not for ever: a signal that comes just before a wait does not end it
        except KeyboardInterrupt:  # how a service ends, and no failure
            console.print("stopping")
