"""`colorize models`: the models that ship, or the cards of model files. Reads headers only: neither torch nor Ray is loaded."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from colorize.model.card import ModelCard, read_card, resolve, shipped_names, without_nan


def models(
    files: Annotated[list[str] | None, typer.Argument(help="Model files, or training runs.", show_default="the models that ship")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List models: name, size, what they were trained on, how well they do."""
    from colorize.cli.display import console

    cards = [(path, read_card(path)) for path in map(resolve, files or shipped_names())]
    if json:
        print(json_module.dumps([_facts(path, card) for path, card in cards], indent=2))
        return
    for path, card in cards:
        scores = card.metrics.get("metrics", {})
        ssim, psnr = scores.get("ssim"), scores.get("psnr_mean")
        told = f"  SSIM {ssim:.4f}  PSNR {psnr:.2f} dB" if ssim is not None and psnr is not None else ""
        pictures = card.training.get("pictures", 0)
        console.print(
            f"{card.name}  {card.parameters / 1e6:.1f} M parameters  {path.stat().st_size / 1e6:.1f} MB  {pictures:,} pictures{told}"
        )


def _facts(path: Path, card: ModelCard) -> dict[str, object]:
    return {
        "name": card.name,
        "parameters": card.parameters,
        "bytes": path.stat().st_size,
        "training_data": {key: card.training[key] for key in ("data", "pictures", "epochs") if key in card.training},
        "metrics": without_nan(card.metrics),
    }
