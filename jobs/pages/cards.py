"""docs/models.md: the cards of the models that ship, from the headers of their files: neither torch nor Ray is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from colorize.cli.display import duration
from colorize.model.card import ModelCard, read_card, resolve, shipped_names

HEAD = """\
# The models that ship

Made by `make docs` from the headers of the files in `colorize/weights/`; do not edit.

`colorize models` prints the same in short, `colorize models --json` for programs. Give a model's name, its file or the directory of
the run that made it wherever a command asks for a model. What the scores mean: [metrics.md](metrics.md).
"""

DECIMALS = {
    "ssim": 4, "psnr_mean": 2, "psnr_pooled": 2, "rgb_mae": 4, "ab_mae": 2, "ciede2000": 2, "colorfulness": 1, "colorfulness_ratio": 2,
    "within_5": 3,
}  # fmt: skip


def page() -> str:
    """The whole page, as Markdown."""
    return "\n".join([HEAD, *(_section(path, read_card(path)) for path in map(resolve, shipped_names()))])


def _section(path: Path, card: ModelCard) -> str:
    network = card.network
    facts = {
        "file": f"`colorize/weights/{path.name}`, {path.stat().st_size / 1e6:.1f} MB (convolutions in float16)",
        "parameters": f"{card.parameters:,}",
        "network": _network(network),
        "palette": f"{network['bins']} bins, {card.palette_step:g} ab units apart",
        "working size": f"short side of {card.working_size} pixels; smaller pictures as they are, above {card.trained_size}"
        if card.trained_size < card.working_size
        else f"short side of {card.working_size} pixels",
        "dial": f"vividness 0: temperature {card.dial['accurate_temperature']:g}; vividness 1: temperature "
        f"{card.dial['vivid_temperature']:g}, prior divided out to the power {card.dial['vivid_rebalance']:g}, chroma raised by "
        f"{card.dial['vivid_lift']:.3g} of the spread; at both, plain areas are levelled with stiffness {card.dial['stiffness']:g}",
        **_training(card.training),
        "weights' SHA-256": f"`{card.weights_sha256}`",
    }
    table = ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in facts.items())]
    return "\n\n".join([f"## `{path.stem}`", "\n".join(table), _scores(card.metrics)]) + "\n"


def _network(network: dict[str, Any]) -> str:
    if network.get("kind") == "photonet":
        return f"{network['encoder']}, from ImageNet, and a decoder of {network['width']} channels at quarter resolution"
    return f"U-Net, {network['width']} channels at half resolution, {network['depth']} levels below, at most {network['widest']}"


def _training(training: dict[str, Any]) -> dict[str, str]:
    """What the run left in the card; nothing for a network that no run has trained."""
    if not training:
        return {"trained on": "nothing: its weights are random"}
    config = training["config"]
    data = ", ".join(f"`{spec}`" for spec in (config["data"], *config.get("more_data", ())))
    # A recipe counts steps, `colorize train` epochs.
    steps = training.get("steps")
    length = f"{steps:,} steps of {config['batch_size']}" if steps else f"{config['epochs']} epochs (best: {training['best_epoch']})"
    base = training.get("base")
    return {
        "trained on": f"{data}: {training['pictures']:,} pictures, {length}",
        **({"from the weights of": f"`{base['name']}`, `{base['sha256'][:12]}`, trained on {base['data']}"} if base else {}),
        "hardware": training["hardware"],
        "time": duration(training["seconds"]),
        "versions": ", ".join(f"{name} {number}" for name, number in training["versions"].items()),
        "commit": f"`{training['commit']}`" if training["commit"] else "not recorded",
    }


def _scores(evaluation: dict[str, Any]) -> str:
    """A row for the model and for each baseline. `colorize train` scores at vividness 0."""
    if not evaluation:
        return "Its card carries no scores."
    rows = {"**the model**": evaluation["metrics"]} | {name.replace("_", " "): of for name, of in evaluation["baselines"].items()}
    told = f"On the test part of `{evaluation['data']}`, {evaluation['pictures']:,} pictures, vividness 0:"
    lines = [f"| | {' | '.join(f'`{key}`' for key in DECIMALS)} |", f"| --- |{' --- |' * len(DECIMALS)}"]
    lines += [f"| {name} | {' | '.join(f'{of[key]:.{digits}f}' for key, digits in DECIMALS.items())} |" for name, of in rows.items()]
    return "\n\n".join([told, "\n".join(lines)])
