"""`colorize models`: the models that ship, or the cards of model files. Reads headers only: neither torch nor Ray is loaded."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from colorize.errors import printable
from colorize.model.card import ModelCard, read_card, resolve, shipped_names, without_nan


def models(
    files: Annotated[list[str] | None, typer.Argument(help="Model files, or training runs.", show_default="the models that ship")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List models: name, size, what they were trained on, how well they do."""
    from rich.text import Text

    from colorize.cli.display import console, table

    cards = [(path, read_card(path)) for path in map(resolve, files or shipped_names())]
    if json:
        print(json_module.dumps([_facts(path, card) for path, card in cards], indent=2))
        return
    listed = table("model", "weights", "file", "pictures", "SSIM", "PSNR", numbers=(1, 2, 3, 4, 5))
    for path, card in cards:
        scores = without_nan(card.metrics).get("metrics", {})
        ssim, psnr = scores.get("ssim"), scores.get("psnr_mean")
        pictures = f"{card.training['pictures']:,}" if "pictures" in card.training else ""
        listed.add_row(
            Text(printable(card.name)), f"{card.parameters / 1e6:.1f} M", f"{path.stat().st_size / 1e6:.1f} MB", pictures,
            "" if ssim is None else f"{ssim:.4f}", "" if psnr is None else f"{psnr:.2f} dB",
        )  # fmt: skip
    console.print(listed)


def _facts(path: Path, card: ModelCard) -> dict[str, object]:
    return {
        "name": card.name,
        "parameters": card.parameters,
        "bytes": path.stat().st_size,
        "training_data": without_nan({key: card.training[key] for key in ("data", "pictures", "epochs") if key in card.training}),
        "metrics": without_nan(card.metrics),
    }
