"""What time and scanners do to a photograph, done to the lightness that the network sees in training. The colours to be learnt stay.

Scans are flat or bleached, soft, grainy, spotted and scratched, saved as JPEG, and lie in a border of paper or in an oval mount. A network
that has only seen clean pictures colours the grain and the paper. All pictures of a batch at once, on its device; seven of ten stay clean,
and each kind of damage strikes its own share of the others. What lies in a border has no colour, so there, and only there, the target
becomes neutral.
Measured on 32 pictures of 128×128, one thread: see docs/training.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

_Uniform = Callable[..., Tensor]

CLEAN = 0.7
"""The share of the pictures that stay as they are. At 0, where a twelfth did by chance, clean photographs lost 0.1 dB and more."""

BORDERED, TONED, BLURRED, GRAINY, SPOTTED, SCRATCHED, BLOCKY = 0.3, 0.7, 0.25, 0.4, 0.15, 0.1, 0.12
"""The share of the others that each kind of damage strikes."""

WIDEST_BORDER = 0.25
"""Of a side, on either end."""

OVAL = 0.3
"""The share of the borders that are oval mounts."""

GAMMA = 1.6
"""The lightness is raised to a power between 1/GAMMA and GAMMA, log-uniformly."""

LIFTED_BLACK, LOWERED_WHITE = 35.0, 30.0
"""How far black may rise and white may fall, in L."""

LARGEST_BLUR = 1.3
"""The largest Gaussian's sigma, in pixels."""

STRONGEST_GRAIN = 6.0
"""The largest grain's standard deviation, in L."""

SPOTS = 12
"""The most specks of dust on a picture."""

COARSEST_STEP = 7.0
"""The largest quantisation step of the blocks' coefficients, in L of a block's mean."""


def degrade(L_b1hw: Tensor, ab_b2hw: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Damaged lightness (b, 1, h, w), 0…100, and the true colours (b, 2, h, w), neutral where a border lies over them.

    The sides must be multiples of 8.
    """
    aged_b111 = torch.rand(len(L_b1hw), 1, 1, 1, generator=generator) >= CLEAN

    def draw(share: float) -> Tensor:
        struck_b111 = torch.rand(len(L_b1hw), 1, 1, 1, generator=generator) < share
        return (struck_b111 & aged_b111).to(L_b1hw)

    def uniform(low: float = 0.0, high: float = 1.0) -> Tensor:
        return (low + (high - low) * torch.rand(len(L_b1hw), 1, 1, 1, generator=generator)).to(L_b1hw)

    struck = draw(BLURRED)
    L_b1hw = _blurred(L_b1hw, uniform(0.4, LARGEST_BLUR) * struck + 0.05)
    struck = draw(TONED)
    L_b1hw = _toned(L_b1hw, uniform(-1, 1) * struck, uniform() * struck, uniform() * struck)
    border_b1hw = _border(L_b1hw, uniform, draw(OVAL)) * draw(BORDERED)
    L_b1hw = torch.lerp(L_b1hw, uniform(5, 97).expand_as(L_b1hw), border_b1hw)
    ab_b2hw = ab_b2hw * (1 - border_b1hw)
    L_b1hw = L_b1hw + _grain(L_b1hw, generator) * (uniform().square() * STRONGEST_GRAIN * draw(GRAINY))
    L_b1hw = L_b1hw + _spots(L_b1hw, generator) * (uniform(-60, 60) * draw(SPOTTED))
    L_b1hw = L_b1hw + _scratch(L_b1hw, uniform) * (uniform(-20, 50) * draw(SCRATCHED))
    L_b1hw = _blocky(L_b1hw, uniform(1.0, COARSEST_STEP), draw(BLOCKY) > 0)
    return L_b1hw.clamp(0, 100), ab_b2hw


def _toned(L_b1hw: Tensor, power_b111: Tensor, black_b111: Tensor, white_b111: Tensor) -> Tensor:
    black, white = black_b111 * LIFTED_BLACK, 100 - white_b111 * LOWERED_WHITE
    curved: Tensor = (L_b1hw / 100).clamp(1e-4, 1).pow(torch.as_tensor(GAMMA).pow(power_b111))
    return black + (white - black) * curved


def _blurred(L_b1hw: Tensor, sigma_b111: Tensor) -> Tensor:
    """Each picture under its own Gaussian: a grouped convolution with the batch as channels, one axis at a time."""
    reach = math.ceil(2 * LARGEST_BLUR)
    offset_n = torch.arange(-reach, reach + 1, device=L_b1hw.device)
    kernel_bn = (-(offset_n.float() ** 2) / (2 * sigma_b111.reshape(-1, 1) ** 2)).softmax(1)
    x = F.pad(L_b1hw.movedim(1, 0), (reach,) * 4, mode="reflect")
    x = F.conv2d(x, kernel_bn[:, None, None, :], groups=len(L_b1hw))
    return F.conv2d(x, kernel_bn[:, None, :, None], groups=len(L_b1hw)).movedim(0, 1)


def _border(L_b1hw: Tensor, uniform: _Uniform, oval_b111: Tensor) -> Tensor:
    """1 in the border, 0 in the picture."""
    y_h1, x_1w = _axes(L_b1hw)
    outside = [x_1w < uniform(0, WIDEST_BORDER), x_1w > 1 - uniform(0, WIDEST_BORDER)]
    outside += [y_h1 < uniform(0, WIDEST_BORDER), y_h1 > 1 - uniform(0, WIDEST_BORDER)]
    frame = outside[0] | outside[1] | outside[2] | outside[3]
    radius_x, radius_y = uniform(0.35, 0.55), uniform(0.35, 0.55)
    oval = ((x_1w - 0.5) / radius_x) ** 2 + ((y_h1 - 0.5) / radius_y) ** 2 > 1
    return torch.where(oval_b111 > 0, oval, frame).to(L_b1hw)


def _grain(L_b1hw: Tensor, generator: torch.Generator | None) -> Tensor:
    """Noise of standard deviation 1, half of it in clumps of two pixels."""
    b, _, height, width = L_b1hw.shape
    fine = torch.randn(b, 1, height, width, generator=generator)
    coarse = torch.randn(b, 1, height // 2, width // 2, generator=generator)
    return ((fine + F.interpolate(coarse, scale_factor=2.0, mode="nearest")) * math.sqrt(0.5)).to(L_b1hw)


def _spots(L_b1hw: Tensor, generator: torch.Generator | None) -> Tensor:
    b, _, height, width = L_b1hw.shape
    share_b111 = SPOTS ** torch.rand(b, 1, 1, 1, generator=generator) / (height * width)
    mask_b1hw = (torch.rand(b, 1, height, width, generator=generator) < share_b111).to(L_b1hw)
    return F.avg_pool2d(F.max_pool2d(mask_b1hw, 3, stride=1, padding=1), 3, stride=1, padding=1)


def _scratch(L_b1hw: Tensor, uniform: _Uniform) -> Tensor:
    """One thin line from top to bottom, or from left to right."""
    y_h1, x_1w = _axes(L_b1hw)
    along, across = (y_h1, x_1w) if float(uniform().mean()) < 0.5 else (x_1w, y_h1)
    distance = (across - uniform() - uniform(-0.3, 0.3) * along) * L_b1hw.shape[-1]
    return (1.2 - distance.abs()).clamp(0, 1)


def _blocky(L_b1hw: Tensor, step_b111: Tensor, struck_b111: Tensor) -> Tensor:
    """JPEG's damage: 8×8 blocks whose cosine coefficients are rounded, the coarser the higher their frequency."""
    struck_b = struck_b111.flatten()
    if not struck_b.any():
        return L_b1hw
    frequency_n = torch.arange(8, device=L_b1hw.device).float()
    cosines_88 = torch.cos(torch.pi / 8 * frequency_n[:, None] * (frequency_n + 0.5)) * torch.where(frequency_n > 0, 0.5, 0.5**1.5)[:, None]
    steps_88 = 1 + 0.75 * (frequency_n[:, None] + frequency_n)
    some_n1hw = L_b1hw[struck_b]
    n, _, height, width = some_n1hw.shape
    blocks = some_n1hw.reshape(n, height // 8, 8, width // 8, 8).transpose(2, 3)
    step = step_b111[struck_b][..., None] * steps_88
    rounded = ((cosines_88 @ blocks @ cosines_88.T) / step).round() * step
    L_b1hw = L_b1hw.clone()
    L_b1hw[struck_b] = (cosines_88.T @ rounded @ cosines_88).transpose(2, 3).reshape(some_n1hw.shape)
    return L_b1hw


def _axes(L_b1hw: Tensor) -> tuple[Tensor, Tensor]:
    """Every row's and every column's place, 0…1: (h, 1) and (1, w)."""
    height, width = L_b1hw.shape[-2:]
    places = [(torch.arange(size, device=L_b1hw.device) + 0.5) / size for size in (height, width)]
    return places[0][:, None], places[1][None, :]
