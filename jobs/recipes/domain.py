"""A domain that the photo model has not seen, learnt from one picture: crops of it, a fine-tuning, crops of its other end judged.

    python -m jobs.recipes.domain histology --run runs/histology

The pictures are those of scikit-image's own package: `histology` (a slide of colon tissue, stained brown and blue), `retina` (a fundus
photograph) and `hubble` (the Hubble Extreme Deep Field). Training crops and held-out crops come from different ends of the picture, with
a gap between them that no crop sees. That is one slide of one laboratory: it says that a model can be taken to a domain in a minute, not
that it then knows the domain.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from PIL import Image

from colorize.cli.main import run as command

PICTURES = {"histology": ("ihc.png", 1), "retina": ("retina.jpg", 2), "hubble": ("hubble_deep_field.jpg", 1)}
"""Of each domain its file in `skimage.data`, and how many times it is made smaller: the fundus is blurred at its own size."""

HELD_OUT_SHARE, GAP = 0.25, 32
"""The share of the width, on the right, that is held out, and the pixels before it that no crop sees."""


def main(
    domain: Annotated[str, typer.Argument(help=", ".join(PICTURES))],
    run: Annotated[Path, typer.Option(help="The run's directory; it must not exist. The crops lie beside it.")],
    model: Annotated[str, typer.Option(help="The model that is tuned.")] = "photo",
    size: Annotated[int, typer.Option(help="The side of the crops.")] = 128,
    stride: Annotated[int, typer.Option(help="From one crop to the next.")] = 48,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training crops.")] = None,
    workers: Annotated[int | None, typer.Option(help="Data-parallel workers.")] = None,
) -> None:
    """Cuts the crops and calls `colorize finetune` on them."""
    if domain not in PICTURES:
        raise typer.BadParameter(f"{domain}: no such domain; there are {', '.join(PICTURES)}")
    crops = run.with_name(f"{run.name}-crops")
    if crops.exists():
        raise typer.BadParameter(f"{crops}: is there already, and crops of another size would be trained on too; name another --run")
    for part, of in zip(("train", "test"), halves(picture(domain), size), strict=True):
        (crops / part).mkdir(parents=True)
        for name, rgb_hwc in cut(of, size, stride).items():
            Image.fromarray(rgb_hwc).save(crops / part / f"{name}.png")
    given = {"--epochs": epochs, "--workers": workers}
    options = [text for name, value in given.items() if value is not None for text in (name, str(value))]
    command(["finetune", model, "--data", f"folder:{crops}", "--size", str(size), "--run", str(run), *options])


def picture(domain: str) -> npt.NDArray[np.uint8]:
    """The domain's picture, RGB (h, w, 3)."""
    name, smaller = PICTURES[domain]
    with (files("skimage.data") / name).open("rb") as file:
        return np.asarray(Image.open(file).convert("RGB").reduce(smaller))


def halves(rgb_hwc: npt.NDArray[np.uint8], size: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """What is trained on, and what is held out; at least one crop wide."""
    border = rgb_hwc.shape[1] - max(size, round(HELD_OUT_SHARE * rgb_hwc.shape[1]))
    return rgb_hwc[:, : border - GAP], rgb_hwc[:, border:]


def cut(rgb_hwc: npt.NDArray[np.uint8], size: int, stride: int) -> dict[str, npt.NDArray[np.uint8]]:
    """Square crops by their place, `stride` pixels apart."""
    height, width = rgb_hwc.shape[:2]
    places = [(top, left) for top in range(0, height - size + 1, stride) for left in range(0, width - size + 1, stride)]
    return {f"{top:04}-{left:04}": rgb_hwc[top : top + size, left : left + size] for top, left in places}


if __name__ == "__main__":
    typer.run(main)
