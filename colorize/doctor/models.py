"""The models: whether each is whole, loads, and colours a picture."""

from __future__ import annotations

from colorize.doctor.finding import Finding
from colorize.errors import ColorizeError
from colorize.model.card import shipped_names

REINSTALL = "install colorize anew, or copy the file again"


def check_models(further: tuple[str, ...] = ()) -> list[Finding]:
    """Every model that ships, and those that are named: a model file, a run's directory."""
    names = shipped_names()
    if not names:
        return [Finding(check="model", status="wrong", found="no model ships with this installation", advice=REINSTALL)]
    return [check_model(name) for name in [*names, *(one for one in further if one not in names)]]


def check_model(name: str) -> Finding:
    """Its weights' SHA-256 against its card, and a picture of 32×32 through its network."""
    import numpy as np
    import torch

    from colorize.data.cifar10 import SIDE, read_sample
    from colorize.imaging.colorspace import lightness_of_rgb
    from colorize.model.colorizer import Colorizer
    from colorize.model.colormodel import load_model

    check = f"model {name}"
    try:
        model = load_model(name)  # compares the digest
        rgb_hwc = read_sample("test")[0, 1:].reshape(3, SIDE, SIDE).transpose(1, 2, 0)
        L_hw = lightness_of_rgb(np.ascontiguousarray(rgb_hwc))
        [prediction] = Colorizer(model).predict([L_hw])
    except ColorizeError as error:
        return Finding(check=check, status="wrong", found=str(error), advice=REINSTALL)
    except RuntimeError as error:  # of torch: no memory, a GPU that does not work
        first = (str(error).splitlines() or [type(error).__name__])[0]
        return Finding(check=check, status="wrong", found=f"cannot colour a picture: {first}", advice="see the lines on memory and GPUs")
    if not bool(torch.isfinite(prediction.ab_n2hw).all() and torch.isfinite(prediction.confidence_hw).all()):
        return Finding(
            check=check,
            status="wrong",
            found="its colours are not finite numbers",
            advice="use another model: this one is damaged or did not converge",
        )
    found = f"{model.card.parameters / 1e6:.1f} M parameters, SHA-256 {model.card.weights_sha256[:12]}…, colours a picture"
    return Finding(check=check, status="ok", found=found)
