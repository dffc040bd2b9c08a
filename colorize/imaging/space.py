"""The colour space of a file's numbers: from its pixels to lightness, and from lightness and chroma back to its pixels.

Knows nothing of files. What an ICC profile means here:

- None: sRGB, and so it stays.
- RGB by matrix and curves (Adobe RGB, Display P3, ProPhoto, scanners' and cameras'): computed in that space, whose gamut is the
  limit of the colours, and the profile is the result's.
- Grey by a curve (dot gain, gamma 2.2): the lightness goes through that curve, and the result carries a made RGB profile of the same
  curve with the primaries of sRGB, so that every program shows the lightness it showed before.
- RGB of grey pixels: R = G = B of that space. Grey of RGB pixels (a toned scan): each channel through the curve, the primaries of sRGB.
- By look-up tables, or with a white that is not white: LittleCMS takes the pixels to sRGB (perceptual), and the result carries a
  profile of sRGB. LittleCMS itself computes to 16 bits, so what was an in-between lightness is kept to its rounding.
- Damaged, or not of grey or RGB: PictureError. To guess sRGB would change the lightness of a picture without a word.

Measured in ns a pixel on one thread (Xeon, numpy 2.4): lightness of grey 1, of RGB 4, of 16 bits the same; compose in sRGB 9, by a
profile 16, where a table of 65,537 entries over the root 1/2.4 of linear light takes the place of the formula: it is within
0.002 of a 16-bit step of the curve's true inverse, from linear light to gamma 3, above 1e-5 of light.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from colorize.errors import PictureError
from colorize.imaging.colorspace import (
    SRGB,
    STRIP_PIXELS,
    Encoding,
    compose,
    compose_float,
    lightness_of_grey,
    lightness_of_luminance,
    lightness_of_rgb,
    linear_of_srgb,
    rgb_to_lab,
)
from colorize.imaging.profile import Curve, Profile, make_profile, parametric_curve, read_profile

SRGB_PROFILE = make_profile(SRGB.xyz_from_rgb, parametric_curve(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045), "sRGB")
"""A profile of sRGB, for files that had one which LittleCMS takes to sRGB."""

_ROOT = 1 / 2.4
_STEPS = 65_536
_EXACT = imagecodecs.CMS.FLAGS.NOOPTIMIZE  # otherwise dark colours are interpolated in 33 steps, 4.5 L* off in linear profiles
_SAME_MATRIX = 2e-3
_SAME_LIGHTNESS = 0.05


class RgbSpace:
    """What the numbers of a file mean, by its ICC profile."""

    def __init__(self, icc_profile: bytes | None = None, name: str = "the picture") -> None:
        """`icc_profile`: as in the file, of grey or RGB; None is sRGB. `name` is what messages call the file.

        Raises PictureError where the profile is damaged, or neither for grey nor for RGB.
        """
        self.output_profile: bytes | None = icc_profile
        """The ICC profile that the coloured file carries; None where it needs none."""
        self.encoding = SRGB
        """The space in which `compose` writes."""
        self._name = name
        self._converted: tuple[str, bytes] | None = None  # what LittleCMS takes to sRGB first: the channels' name, the profile
        if icc_profile is None:
            return
        profile = read_profile(icc_profile, name)
        if not profile.curves:
            self._converted = ("gray" if profile.is_grey else "rgb", icc_profile)
            self.output_profile = SRGB_PROFILE
            self._to_srgb(np.zeros((1, 1, 3), np.uint8))  # fails now if it fails at all
            return
        if profile.is_grey:
            self.output_profile = make_profile(SRGB.xyz_from_rgb, profile.trc, "Grey curve, primaries of sRGB")
        self.encoding = _encoding(self.output_profile)

    @property
    def is_converted(self) -> bool:
        """Whether the profile is one of look-up tables, so that pixels are taken to sRGB and stay there."""
        return self._converted is not None

    def lightness(self, pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
        """L (h, w), 0…100, of grey (h, w) or RGB (h, w, 3) pixels of 8 or 16 bits."""
        if self._converted is not None:
            pixels = self._to_srgb(pixels)
        return lightness_of_grey(pixels, self.encoding) if pixels.ndim == 2 else lightness_of_rgb(pixels, self.encoding)

    def lab(self, pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
        """LAB (3, h, w) of grey (h, w) or RGB (h, w, 3) pixels of 8 or 16 bits."""
        if self._converted is not None:
            pixels = self._to_srgb(pixels)
        rgb_hwc = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels
        rgb_3hw = torch.from_numpy(np.array(rgb_hwc.transpose(2, 0, 1), order="C"))[None]  # a copy: pixels may be read-only
        return rgb_to_lab(rgb_3hw, self.encoding)[0].numpy()

    def compose(
        self, L_hw: npt.NDArray[np.float32], ab_2hw: npt.NDArray[np.float32], bits: int
    ) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        """RGB (h, w, 3) of 8 or 16 bits: the lightness kept, chroma given up where the gamut ends."""
        rgb_b3hw = compose(torch.from_numpy(L_hw)[None, None], torch.from_numpy(ab_2hw)[None], bits, self.encoding)
        return rgb_b3hw[0].movedim(0, -1).contiguous().numpy()

    def compose_float(self, L_b1hw: Tensor, ab_b2hw: Tensor) -> Tensor:
        """The same for batches, not rounded: encoded RGB float32 (b, 3, h, w) in 0…1."""
        return compose_float(L_b1hw, ab_b2hw, self.encoding)

    def _to_srgb(self, pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
        """RGB of sRGB (h, w, 3), 16 bits, by LittleCMS."""
        assert self._converted is not None
        space, profile = self._converted
        as_read: npt.NDArray[Any] = pixels
        if space == "rgb" and pixels.ndim == 2:
            as_read = np.repeat(pixels[..., None], 3, axis=2)
        if space == "gray" and pixels.ndim == 3:
            as_read = pixels[..., 1]
        rgb_hwc = np.empty((*pixels.shape[:2], 3), np.uint16)
        rows = max(1, STRIP_PIXELS // max(1, pixels.shape[1]))
        try:
            for top in range(0, len(pixels), rows):
                strip = np.ascontiguousarray(as_read[top : top + rows])
                rgb_hwc[top : top + rows] = imagecodecs.cms_transform(
                    strip, profile, SRGB_PROFILE, colorspace=space, outcolorspace="rgb", outdtype="uint16", intent=0, flags=_EXACT
                )
        except (imagecodecs.CmsError, ValueError, TypeError) as error:
            raise PictureError(f"{self._name}: has an ICC profile that cannot be used: {error}; mend or remove the profile") from error
        return rgb_hwc


def _is_srgb(profile: Profile) -> bool:
    """Whether the profile says nothing but sRGB, to within what no eye sees; then the faster formulas serve."""
    assert profile.xyz_from_rgb is not None
    levels = np.linspace(0, 1, 256)
    expected = lightness_of_luminance(linear_of_srgb(levels))
    error = max(float(np.abs(lightness_of_luminance(curve(levels)) - expected).max()) for curve in profile.curves)
    return error < _SAME_LIGHTNESS and float(np.abs(profile.xyz_from_rgb - SRGB.xyz_from_rgb).max()) < _SAME_MATRIX


@lru_cache(maxsize=16)
def _encoding(icc_profile: bytes) -> Encoding:
    """The encoding of an RGB profile of matrix and curves, kept: an archive has few profiles, and each takes 15 ms."""
    profile = read_profile(icc_profile, "the picture")
    assert profile.xyz_from_rgb is not None
    if _is_srgb(profile):
        return SRGB
    curves = profile.curves
    inverse_3n = np.stack([_inverse(curve) for curve in curves])

    def encode(linear_b3n: Tensor) -> Tensor:
        place_b3n = np.maximum(linear_b3n.numpy(), np.float32(1e-12))
        np.log(place_b3n, out=place_b3n)
        place_b3n *= np.float32(_ROOT)
        np.exp(place_b3n, out=place_b3n)
        place_b3n *= np.float32(_STEPS)
        np.clip(place_b3n, 0, _STEPS, out=place_b3n)
        index_b3n = np.minimum(place_b3n.astype(np.int32), _STEPS - 1)
        place_b3n -= index_b3n
        for channel in range(3):
            lower = np.take(inverse_3n[channel], index_b3n[:, channel])
            upper = np.take(inverse_3n[channel], index_b3n[:, channel] + 1)
            place_b3n[:, channel] *= upper - lower
            place_b3n[:, channel] += lower
        return torch.from_numpy(place_b3n)

    ends = np.array([curve(np.array([0.0, 1.0])) for curve in curves])
    return Encoding(
        xyz_from_rgb=profile.xyz_from_rgb,
        linear=lambda levels_n: np.stack([curve(levels_n) for curve in curves]),
        encode=encode,
        low=float(ends[:, 0].max()),
        high=float(ends[:, 1].min()),
    )


def _inverse(curve: Curve) -> npt.NDArray[np.float32]:
    """The encoded levels of linear light (i / _STEPS)^2.4."""
    levels = np.linspace(0, 1, 4 * _STEPS + 1)
    light = np.maximum.accumulate(curve(levels))
    asked = (np.arange(_STEPS + 1) / _STEPS) ** 2.4
    encoded = np.interp(asked, light, levels)
    if light[1] == light[0]:  # of many levels that are all black the first, also where float32 misses black
        encoded[asked <= light[0] + 1e-7] = 0
    encoded[asked >= light[-1]] = 1
    return encoded.astype(np.float32)
