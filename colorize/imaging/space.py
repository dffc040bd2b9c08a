"""The colour space of a file's numbers: from its pixels to lightness, and from lightness and chroma back to its pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from colorize.imaging.colorspace import compose, lightness_of_grey, rgb_to_lab


class RgbSpace:
    """What the numbers of a file mean, by its ICC profile."""

    def __init__(self, icc_profile: bytes | None = None) -> None:
        """`icc_profile`: as in the file, of grey or RGB; None is sRGB."""
        self.output_profile: bytes | None = icc_profile

    def lightness(self, pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
        """L (h, w), 0…100, of grey (h, w) or RGB (h, w, 3) pixels of 8 or 16 bits."""
        if pixels.ndim == 2 and pixels.dtype == np.uint8:
            return lightness_of_grey(pixels)
        return self.lab(pixels)[0]

    def lab(self, pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
        """LAB (3, h, w) of grey (h, w) or RGB (h, w, 3) pixels of 8 or 16 bits."""
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[..., None], 3, axis=2)
        rgb_3hw = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]
        if pixels.dtype == np.uint16:
            rgb_3hw = rgb_3hw.float() / 65535
        return rgb_to_lab(rgb_3hw)[0].numpy()

    def compose(
        self, L_hw: npt.NDArray[np.float32], ab_2hw: npt.NDArray[np.float32], bits: int
    ) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        """RGB (h, w, 3) of 8 or 16 bits: the lightness kept, chroma given up where the gamut ends."""
        assert bits == 8, "16 bits come with this class's second step"
        return compose(torch.from_numpy(L_hw)[None, None], torch.from_numpy(ab_2hw)[None])[0].movedim(0, -1).numpy()
