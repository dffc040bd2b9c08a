"""Options that several commands have."""

import typer

ADDRESS = typer.Option(help="A Ray cluster to join (host:port, auto); without it RAY_ADDRESS, else a local Ray is started.")
RUN = typer.Option(
    metavar="DIRECTORY",
    help="The run's directory, or a URL such as s3://bucket/runs/one; it must not exist.",
    show_default="runs/DATE-TIME",
)
TEMPERATURE = typer.Option(help="0.01 to 1: the smaller, the more decided.", show_default="the model's own")
PALETTE = typer.Option(
    metavar="NAME|FILE.json", help="The colours of a period: autochrome, faded, kodachrome, technicolor; or your own.", show_default=False
)
REFERENCE = typer.Option(metavar="PICTURE", help="A colour picture whose colours are taken over.", show_default=False)
