"""What a picture goes through on its way into a training step: crop, flip, hints. Vectorised over the batch, on its device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_HINTS = 32
"""The most hinted places in a picture; the number is drawn log-uniformly from 1 up to it (a user clicks a few times)."""

ZOOM = 0.7
"""Half of the pictures are enlarged: a square of this share of the side, or more, fills the picture."""

SHIFT = 4
"""The others are moved by up to this many whole pixels, so that they stay sharp."""

CONTRAST, BRIGHTNESS = 0.2, 8.0
"""How far the lightness of half of the pictures is stretched around 50, and shifted: scans are flat, dark or bleached."""

CLOSEST, STRETCH, TURN = 0.5, 1.15, 0.06
"""How photographs are reframed: the smallest share of the side, the largest stretch, the largest turn in radians."""


def vary(L_b1hw: Tensor, ab_b2hw: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Each picture shifted or enlarged, reflected at its borders, and half of them in another light; sizes stay.

    Without it a network of 3.2 M parameters starts to learn CIFAR-10's training pictures by heart in epoch 13 (PSNR 25.30 dB on test
    pictures, 25.23 five epochs later, 26.3 on the training pictures themselves).
    """
    b, side = len(L_b1hw), L_b1hw.shape[-1]

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    zoomed_b = uniform(b) < 0.5
    scale_b = torch.where(zoomed_b, ZOOM + (1 - ZOOM) * uniform(b), torch.ones(b))
    pixels_b2 = torch.randint(-SHIFT, SHIFT + 1, (b, 2), generator=generator) * (2 / side)
    shift_b2 = torch.where(zoomed_b[:, None], (1 - scale_b)[:, None] * (2 * uniform(b, 2) - 1), pixels_b2)
    affine_b23 = torch.zeros(b, 2, 3)
    affine_b23[:, 0, 0] = affine_b23[:, 1, 1] = scale_b
    affine_b23[:, :, 2] = shift_b2
    lab_b3hw = torch.cat([L_b1hw, ab_b2hw], 1)
    grid_bhw2 = F.affine_grid(affine_b23.to(lab_b3hw), list(lab_b3hw.shape), align_corners=False)
    lab_b3hw = F.grid_sample(lab_b3hw, grid_bhw2, padding_mode="reflection", align_corners=False)
    lit_b111 = uniform(b, 1, 1, 1) < 0.5
    contrast_b111 = torch.where(lit_b111, 1 + CONTRAST * (2 * uniform(b, 1, 1, 1) - 1), torch.ones(b, 1, 1, 1)).to(lab_b3hw)
    brightness_b111 = torch.where(lit_b111, BRIGHTNESS * (2 * uniform(b, 1, 1, 1) - 1), torch.zeros(b, 1, 1, 1)).to(lab_b3hw)
    return (50 + (lab_b3hw[:, :1] - 50) * contrast_b111 + brightness_b111).clamp(0, 100), lab_b3hw[:, 1:]


def reframe(L_b1hw: Tensor, ab_b2hw: Tensor, size: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Photographs as another photographer might have framed them: (b, 1, size, size) and (b, 2, size, size).

    Half of them nearly whole, the others cropped to half of their side or more; slightly turned and stretched, half of them mirrored.
    """
    b = len(L_b1hw)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(b, generator=generator)

    scale_b = torch.where(uniform(0, 1) < 0.5, uniform(0.9, 1), uniform(CLOSEST, 1))
    stretch_b = STRETCH ** uniform(-1, 1)
    angle_b = TURN * uniform(-1, 1)
    across_b, along_b = scale_b * stretch_b.clamp_max(1), scale_b / stretch_b.clamp_min(1)
    mirror_b = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    affine_b23 = torch.zeros(b, 2, 3)
    affine_b23[:, 0, 0], affine_b23[:, 0, 1] = mirror_b * across_b * angle_b.cos(), -along_b * angle_b.sin()
    affine_b23[:, 1, 0], affine_b23[:, 1, 1] = mirror_b * across_b * angle_b.sin(), along_b * angle_b.cos()
    affine_b23[:, 0, 2], affine_b23[:, 1, 2] = (1 - across_b) * uniform(-1, 1), (1 - along_b) * uniform(-1, 1)
    lab_b3hw = torch.cat([L_b1hw, ab_b2hw], 1)
    grid_bhw2 = F.affine_grid(affine_b23.to(lab_b3hw), [b, 3, size, size], align_corners=False)
    lab_b3hw = F.grid_sample(lab_b3hw, grid_bhw2, padding_mode="reflection", align_corners=False)
    return lab_b3hw[:, :1], lab_b3hw[:, 1:]


def crop_and_flip(L_b1hw: Tensor, ab_b2hw: Tensor, size: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """One random crop of size×size for the whole batch, and a random mirror image for each picture."""
    height, width = L_b1hw.shape[-2:]
    if (height, width) != (size, size):
        top = int(torch.randint(height - size + 1, (1,), generator=generator))
        left = int(torch.randint(width - size + 1, (1,), generator=generator))
        L_b1hw = L_b1hw[..., top : top + size, left : left + size]
        ab_b2hw = ab_b2hw[..., top : top + size, left : left + size]
    flip_b111 = (torch.rand(len(L_b1hw), 1, 1, 1, generator=generator) < 0.5).to(L_b1hw.device)
    return torch.where(flip_b111, L_b1hw.flip(-1), L_b1hw), torch.where(flip_b111, ab_b2hw.flip(-1), ab_b2hw)


def random_hints(ab_b2hw: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
    """Sparse hints from the true colours: (b, 3, h, w), ab and mask; about `share` of the pictures get any.

    As in Zhang et al. 2017 ("Real-time user-guided colorization"): a random number of places, each a point or a small square.
    """
    b, _, height, width = ab_b2hw.shape
    places_b111 = MOST_HINTS ** torch.rand(b, 1, 1, 1, generator=generator)
    hinted_b111 = torch.rand(b, 1, 1, 1, generator=generator) < share
    mask_b1hw = (torch.rand(b, 1, height, width, generator=generator) < places_b111 / (height * width)) & hinted_b111
    mask_b1hw = mask_b1hw.to(ab_b2hw)
    side = 1 + 2 * int(torch.randint(2, (1,), generator=generator))
    mask_b1hw = F.max_pool2d(mask_b1hw, side, stride=1, padding=side // 2)
    return torch.cat([ab_b2hw * mask_b1hw, mask_b1hw], 1)
