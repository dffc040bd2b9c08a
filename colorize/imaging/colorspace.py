"""sRGB, CIE LAB (D65, 2° observer) and JFIF YCbCr on torch tensors, and the gamut-safe way from lightness and chroma to 8 or 16 bits.

Knows nothing of files, networks and Ray. Works on any device, without gradients, and always in float32: autocast does not reach
it, because every step is elementwise arithmetic. What is said of sRGB holds for any `Encoding`, three primaries with their curves,
that is passed in its place.

Measured in ns a pixel on one thread of a busy machine (Xeon with AVX-512, torch 2.13, numpy 2.4; the best of 30 alternating runs):
skimage's rgb2lab 127; rgb_to_lab of uint8 17, of floating point 31; lab_to_rgb 19; compose 29, and 500 more a pixel outside the
gamut. The cube root decides: rgb_to_lab takes 34 by torch.pow, 17 by exp(log/3), 14 by numpy's cbrt, which is that fast with
AVX-512 only. Hence exp(log), from a 256-entry linearisation table, in strips of 64k pixels, whose arrays stay in the cache.
Nothing here uses torch's threads: on cores that others use as well, waiting for each other in every small operation took 28 times
longer. Parallelism is the callers': Ray workers have one thread each anyway.
Formulas: IEC 61966-2-1 (sRGB), CIE 15:2004 (LAB), ITU-T T.871 (JFIF). The RGB→XYZ matrix is skimage's, each row divided by its
sum, which takes white as the reference white: greys come out neutral (to 1e-4), and no colour moves by more than 0.005.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

STRIP_PIXELS = 65_536
SERIAL_PIXELS = 10_240  # three planes of it stay under 32,768 elements, from where torch splits an operation among its threads
GAMUT_TOLERANCE = {8: 1e-5, 16: 1e-6}
"""In linear light: 1/30 of an 8-bit step at black, which is more than float32 leaves of a colour on the border. For 16 bits it must
be a tenth of that, or clipping it would cost 0.009 of L by black, three times what 2/65535 allows."""
BISECTION_STEPS = 14
PULLED_PIXELS = 8_192  # three planes of it, and as many for what is in between, stay in a core's own cache

_XYZ_FROM_RGB = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_XYZ_FROM_RGB /= _XYZ_FROM_RGB.sum(axis=1, keepdims=True)  # relative to white
_YCC_FROM_RGB = np.array([[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]])
_CUBE_LIMIT = (6 / 29) ** 3  # below it LAB's cube root gives way to its tangent
_CUBE_SLOPE = (29 / 6) ** 2 / 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoding:
    """An RGB colour space: its primaries, and the curves by which its numbers stand for light."""

    xyz_from_rgb: npt.NDArray[np.float64]
    """(3, 3): XYZ relative to white (D65) of linear RGB; the rows' sums are 1, so that R = G = B is neutral."""
    linear: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
    """Linear light (3, n) of encoded levels (n,) in 0…1: the three channels' curves, rising."""
    encode: Callable[[Tensor], Tensor]
    """Encoded RGB of linear RGB, float32 (b, 3, n), by float32 arithmetic; may destroy its argument."""
    low: float = 0
    """Linear light from which every channel can be encoded."""
    high: float = 1
    """Linear light up to which every channel can be encoded."""
    rgb_from_xyz: npt.NDArray[np.float64] = field(init=False)
    _tables: dict[tuple[str, int], npt.NDArray[np.float32]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rgb_from_xyz", np.linalg.inv(self.xyz_from_rgb))

    def linear_table(self, bits: int) -> npt.NDArray[np.float32]:
        """Linear light (3, 2^bits) of every level of 8 or 16 bits."""
        return self._table("linear", bits, lambda linear_3n: linear_3n)

    def lightness_table(self, bits: int) -> npt.NDArray[np.float32]:
        """L (2^bits,), 0…100, of every grey of 8 or 16 bits."""
        return self._table("lightness", bits, lambda linear_3n: lightness_of_luminance(self.xyz_from_rgb[1] @ linear_3n))

    def _table(self, what: str, bits: int, of: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]) -> npt.NDArray[np.float32]:
        if (what, bits) not in self._tables:
            self._tables[what, bits] = of(self.linear(np.linspace(0, 1, 2**bits))).astype(np.float32)
        return self._tables[what, bits]


def linear_of_srgb(srgb: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Linear light of sRGB levels in 0…1, of any shape, in double precision."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((np.maximum(srgb, 0.04045) + 0.055) / 1.055) ** 2.4)


def lightness_of_luminance(y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """L, 0…100, of luminance relative to white, of any shape, in double precision."""
    return 116 * np.where(y > _CUBE_LIMIT, np.cbrt(y), _CUBE_SLOPE * y + 4 / 29) - 16


def rescaled(levels: npt.NDArray[Any], maximum: int, to: int) -> npt.NDArray[Any]:
    """Integer levels of 0…maximum, of any shape, as levels of 0…to, rounded: uint8 where `to` is below 256, else uint16."""
    dtype = np.uint8 if to < 256 else np.uint16
    if maximum == to and levels.dtype == dtype:
        return levels
    return np.take(np.round(np.arange(maximum + 1) * (to / maximum)).astype(dtype), levels)


def lightness_of_grey(grey: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], encoding: Encoding | None = None) -> npt.NDArray[np.float32]:
    """The lightness L, 0…100, of greys of 8 or 16 bits and of any shape: one look-up a pixel. sRGB unless told otherwise."""
    assert grey.dtype in (np.uint8, np.uint16), f"grey must be uint8 or uint16, not {grey.dtype}"
    return np.take((encoding or SRGB).lightness_table(8 * grey.dtype.itemsize), grey)


def lightness_of_rgb(rgb_hwc: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], encoding: Encoding | None = None) -> npt.NDArray[np.float32]:
    """The lightness L (h, w), 0…100, of RGB (h, w, 3) of 8 or 16 bits: what `rgb_to_lab` gives, in half its time."""
    assert rgb_hwc.ndim == 3, f"RGB must be (height, width, 3), not {rgb_hwc.shape}"
    assert rgb_hwc.shape[2] == 3, f"RGB must be (height, width, 3), not {rgb_hwc.shape}"
    assert rgb_hwc.dtype in (np.uint8, np.uint16), f"RGB must be uint8 or uint16, not {rgb_hwc.dtype}"
    encoding = encoding or SRGB
    height, width = rgb_hwc.shape[:2]
    y_of_level_3n = encoding.linear_table(8 * rgb_hwc.dtype.itemsize) * encoding.xyz_from_rgb[1, :, None].astype(np.float32)
    L_hw = np.empty((height, width), np.float32)
    rows = max(1, STRIP_PIXELS // max(1, width))
    for top in range(0, height, rows):
        strip_hwc = rgb_hwc[top : top + rows]
        y_1hw = np.take(y_of_level_3n[0], strip_hwc[..., 0])[None]
        y_1hw += np.take(y_of_level_3n[1], strip_hwc[..., 1])
        y_1hw += np.take(y_of_level_3n[2], strip_hwc[..., 2])
        f_1hw = _lab_root(torch.from_numpy(y_1hw)).mul_(116).sub_(16).clamp_(0, 100)
        L_hw[top : top + rows] = f_1hw[0].numpy()
    return L_hw


@torch.no_grad()
def rgb_to_lab(rgb_b3hw: Tensor, encoding: Encoding | None = None) -> Tensor:
    """RGB (uint8, uint16, of sRGB also floating point in 0…1) to LAB float32, L 0…100, ab about −110…110; sRGB unless told otherwise.

    Of sRGB within 0.01 of skimage's `rgb2lab`. 16 bits are looked up in a table as 8 are, and cost the same.
    """
    _assert_planes(rgb_b3hw, 3)
    encoding = encoding or SRGB
    linear: Callable[[Tensor], Tensor]
    if rgb_b3hw.is_floating_point():
        assert encoding is SRGB, "floating-point RGB is sRGB"
        if rgb_b3hw.numel():
            low, high = (float(bound) for bound in rgb_b3hw.aminmax())
            assert -1e-3 <= low <= high <= 1 + 1e-3, f"floating-point RGB must lie in 0…1, not {low}…{high}"
        linear = _linear_of_srgb
    else:
        assert rgb_b3hw.dtype in (torch.uint8, torch.uint16), f"RGB must be uint8, uint16 or floating point, not {rgb_b3hw.dtype}"
        table_3n = torch.from_numpy(encoding.linear_table(8 * rgb_b3hw.element_size())).to(rgb_b3hw.device)
        linear = partial(_looked_up, table_3n)

    lab_b3hw = torch.empty(rgb_b3hw.shape, dtype=torch.float32, device=rgb_b3hw.device)
    for rgb_b3n, lab_b3n in _strips(rgb_b3hw, lab_b3hw):
        f_x, f_y, f_z = _lab_root(_mix(encoding.xyz_from_rgb, linear(rgb_b3n))).unbind(1)
        torch.mul(f_y, 116, out=lab_b3n[:, 0]).sub_(16).clamp_(0, 100)  # float32 misses black by 4e-6
        torch.sub(f_x, f_y, out=lab_b3n[:, 1]).mul_(500)
        torch.sub(f_y, f_z, out=lab_b3n[:, 2]).mul_(200)
    return lab_b3hw


@torch.no_grad()
def lab_to_rgb(lab_b3hw: Tensor) -> Tensor:
    """LAB to gamma-encoded sRGB float32, not clipped: what the gamut does not hold lies outside 0…1."""
    _assert_planes(lab_b3hw, 3)
    rgb_b3hw = torch.empty(lab_b3hw.shape, dtype=torch.float32, device=lab_b3hw.device)
    for lab_b3n, rgb_b3n in _strips(lab_b3hw, rgb_b3hw):
        rgb_b3n.copy_(_srgb_of_linear(_linear_of_lab(lab_b3n[:, 0], lab_b3n[:, 1:], SRGB)))
    return rgb_b3hw


@torch.no_grad()
def lab_to_ycbcr(lab_b3hw: Tensor) -> Tensor:
    """LAB to JFIF YCbCr float32, full range 0…255 with neutral chroma at 128; colours outside the gamut are not clipped."""
    _assert_planes(lab_b3hw, 3)
    ycbcr_b3hw = torch.empty(lab_b3hw.shape, dtype=torch.float32, device=lab_b3hw.device)
    for lab_b3n, ycbcr_b3n in _strips(lab_b3hw, ycbcr_b3hw):
        rgb_b3n = _srgb_of_linear(_linear_of_lab(lab_b3n[:, 0], lab_b3n[:, 1:], SRGB))
        ycbcr_b3n.copy_(_mix(255 * _YCC_FROM_RGB, rgb_b3n))
        ycbcr_b3n[:, 1:].add_(128)
    return ycbcr_b3hw


@torch.no_grad()
def compose(L_b1hw: Tensor, ab_b2hw: Tensor, bits: int = 8, encoding: Encoding | None = None) -> Tensor:
    """Lightness and chroma to RGB uint8 or uint16 (`bits` 8 or 16), giving up chroma where the gamut ends, and never lightness.

    L in 0…100, ab of any size; sRGB unless told otherwise. Outside the gamut, a pixel's (a, b) is multiplied by a factor below 1,
    which takes it to where its line from the grey axis leaves the gamut: found by bisection, to 2⁻¹⁴, over those pixels alone. Hue
    stays. (By saturated yellow the gamut is slightly concave, by 3 levels of 255; there the line may leave it, return and leave: one
    of those it is.) Inside, this is the plain conversion. The result's lightness differs from L by at most 0.27 in 8 bits: 0.261 that
    rounding costs the worst colour, (0, 29, 0), and what GAMUT_TOLERANCE clips. In 16 bits by 0.0012 (2/65535 of full scale are 0.0031).
    """
    assert bits in (8, 16), f"bits must be 8 or 16, not {bits}"
    top = 2**bits - 1

    def round_to_bits(encoded_b3n: Tensor) -> Tensor:
        return encoded_b3n.mul_(top).add_(0.5).clamp_(0, top)  # the conversion to integers truncates

    return _composed(L_b1hw, ab_b2hw, torch.uint8 if bits == 8 else torch.uint16, encoding or SRGB, GAMUT_TOLERANCE[bits], round_to_bits)


@torch.no_grad()
def compose_float(L_b1hw: Tensor, ab_b2hw: Tensor, encoding: Encoding | None = None) -> Tensor:
    """The same as `compose`, not rounded: encoded RGB float32 in 0…1."""
    return _composed(L_b1hw, ab_b2hw, torch.float32, encoding or SRGB, GAMUT_TOLERANCE[16], lambda encoded_b3n: encoded_b3n.clamp_(0, 1))


def _composed(
    L_b1hw: Tensor, ab_b2hw: Tensor, dtype: torch.dtype, encoding: Encoding, tolerance: float, finished: Callable[[Tensor], Tensor]
) -> Tensor:
    """RGB of lightness and chroma: what `finished` makes of the encoded colours, as `dtype`.

    Colours outside the gamut are few in most strips, and looking for its border costs by the call. So they wait for each other, up to
    PULLED_PIXELS: 500 pictures of 32×32 take 55 ms so, not 141.
    """
    _assert_planes(L_b1hw, 1)
    _assert_planes(ab_b2hw, 2)
    batch, _, height, width = L_b1hw.shape
    assert ab_b2hw.shape == (batch, 2, height, width), f"L is {tuple(L_b1hw.shape)}, but ab {tuple(ab_b2hw.shape)}"
    rgb_b3hw = torch.empty((batch, 3, height, width), dtype=dtype, device=L_b1hw.device)
    waiting: list[tuple[Tensor, Tensor, Tensor]] = []
    for L_b1n, ab_b2n, rgb_b3n in _strips(L_b1hw, ab_b2hw, rgb_b3hw):
        linear_b3n = _linear_of_lab(L_b1n[:, 0], ab_b2n, encoding)
        outside_bn = _outside(linear_b3n, encoding, tolerance)
        rgb_b3n.copy_(finished(encoding.encode(linear_b3n)))
        if outside_bn.any():
            lab_3m = torch.stack([plane_bn.float().masked_select(outside_bn) for plane_bn in (L_b1n[:, 0], *ab_b2n.unbind(1))])
            waiting.append((rgb_b3n, outside_bn, lab_3m))
        if sum(lab_3n.shape[1] for _, _, lab_3n in waiting) >= PULLED_PIXELS:
            _pull_in(waiting, encoding, tolerance, finished)
            waiting = []
    if waiting:
        _pull_in(waiting, encoding, tolerance, finished)
    return rgb_b3hw


def _pull_in(
    waiting: list[tuple[Tensor, Tensor, Tensor]], encoding: Encoding, tolerance: float, finished: Callable[[Tensor], Tensor]
) -> None:
    """Writes colours outside the gamut into their strips: moved to its border at their own lightness and hue.

    waiting: of each strip its RGB (b, 3, n), which of its colours are meant (b, n), and their LAB (3, m).
    """
    lab_3m = torch.cat([lab_3m for _, _, lab_3m in waiting], 1)
    rgb_3m = finished(encoding.encode(_pulled_in(lab_3m[0], lab_3m[1:], encoding, tolerance)[None]))[0]
    first = 0
    for rgb_b3n, outside_bn, lab_3m in waiting:
        last = first + lab_3m.shape[1]
        meant_3m = rgb_3m[:, first:last].to(rgb_b3n.dtype)
        first = last
        if rgb_b3n.dtype == torch.uint16:  # torch 2.13 scatters none; the bits are the same
            rgb_b3n, meant_3m = rgb_b3n.view(torch.int16), meant_3m.view(torch.int16)
        for channel in range(3):
            rgb_b3n[:, channel].masked_scatter_(outside_bn, meant_3m[channel])


def _pulled_in(L_n: Tensor, ab_2n: Tensor, encoding: Encoding, tolerance: float) -> Tensor:
    """Colours outside the gamut, moved to its border at their own lightness and hue, as linear RGB (3, n)."""
    factors = []
    for first in range(0, len(L_n), PULLED_PIXELS):
        L_m, ab_2m = (planes[..., first : first + PULLED_PIXELS] for planes in (L_n, ab_2n))
        f_y_m = (L_m + 16) / 116
        per_chroma_3m = torch.stack([ab_2m[0] / 500, torch.zeros_like(f_y_m), ab_2m[1] / -200])
        if L_n.device.type == "cpu":  # 14 times some 35 small operations: for a few hundred pixels numpy's calls take a third of torch's
            factors.append(torch.from_numpy(_largest_factor(f_y_m.numpy(), per_chroma_3m.numpy(), encoding, tolerance, np.where)))
        else:
            factors.append(_largest_factor(f_y_m, per_chroma_3m, encoding, tolerance, torch.where))
    return _linear_of_lab(L_n[None], (ab_2n * torch.cat(factors))[None], encoding)[0]


def _largest_factor(f_y_m: Any, per_chroma_3m: Any, encoding: Encoding, tolerance: float, where: Callable[..., Any]) -> Any:
    """The factors (m,) of chroma at which colours reach the border: numpy's arrays or torch's, with the `where` that is theirs.

    f_y_m: LAB's f of Y relative to white; per_chroma_3m: by how much f of X, Y and Z differs from it where the factor is 1.
    """
    middle, reach = (encoding.low + encoding.high) / 2, (encoding.high - encoding.low) / 2 + tolerance
    rows = encoding.rgb_from_xyz.tolist()
    factor_m, step = 0 * f_y_m, 0.5
    for _ in range(BISECTION_STEPS):
        tried_m = factor_m + step
        f_3m = per_chroma_3m * tried_m + f_y_m
        upper_3m = f_3m.clip(min=6 / 29)
        x_m, y_m, z_m = upper_3m * upper_3m * upper_3m + (f_3m - upper_3m) * (1 / _CUBE_SLOPE)
        red_m, green_m, blue_m = (abs(m_1 * x_m + m_2 * y_m + m_3 * z_m - middle) > reach for m_1, m_2, m_3 in rows)
        factor_m = where(red_m | green_m | blue_m, factor_m, tried_m)
        step /= 2
    return factor_m


def _outside(linear_b3n: Tensor, encoding: Encoding, tolerance: float) -> Tensor:
    low, high = linear_b3n.amin(1), linear_b3n.amax(1)
    return (low < encoding.low - tolerance) | (high > encoding.high + tolerance)


def _linear_of_lab(L_bn: Tensor, ab_b2n: Tensor, encoding: Encoding) -> Tensor:
    """Linear RGB (b, 3, …) of lightness (b, …) and chroma (b, 2, …)."""
    f_b3n = torch.empty((ab_b2n.shape[0], 3, *ab_b2n.shape[2:]), dtype=torch.float32, device=ab_b2n.device)
    f_y = torch.add(L_bn.float(), 16, out=f_b3n[:, 1]).div_(116)
    torch.add(f_y, ab_b2n[:, 0], alpha=1 / 500, out=f_b3n[:, 0])
    torch.sub(f_y, ab_b2n[:, 1], alpha=1 / 200, out=f_b3n[:, 2])
    upper = f_b3n.clamp(min=6 / 29)
    below = f_b3n.sub_(upper)
    xyz_b3n = (upper * upper).mul_(upper).add_(below, alpha=1 / _CUBE_SLOPE)
    return _mix(encoding.rgb_from_xyz, xyz_b3n)


def _lab_root(xyz_b3n: Tensor) -> Tensor:
    """LAB's f of XYZ relative to white, in place: the cube root, and its tangent below the limit."""
    upper = xyz_b3n.clamp(min=_CUBE_LIMIT)
    below = xyz_b3n.sub_(upper)
    return _power(upper, 1 / 3).add_(below, alpha=_CUBE_SLOPE)


def _looked_up(table_3n: Tensor, levels_b3n: Tensor) -> Tensor:
    """Every channel's levels in its own table."""
    if levels_b3n.device.type != "cpu":
        return torch.stack([table_3n[channel][levels_b3n[:, channel].long()] for channel in range(3)], dim=1)
    linear_b3n = np.empty(levels_b3n.shape, np.float32)
    for channel in range(3):  # numpy's take needs no copy as int32, and is three times as fast as index_select with one
        np.take(table_3n[channel].numpy(), levels_b3n[:, channel].numpy(), out=linear_b3n[:, channel], mode="clip")
    return torch.from_numpy(linear_b3n)


def _linear_of_srgb(rgb_b3n: Tensor) -> Tensor:
    rgb_b3n = rgb_b3n.float()
    upper = rgb_b3n.clamp(min=0.04045)
    below = rgb_b3n - upper
    return _power(upper.add_(0.055).div_(1.055), 2.4).add_(below, alpha=1 / 12.92)


def _srgb_of_linear(linear_b3n: Tensor) -> Tensor:
    upper = linear_b3n.clamp(min=0.0031308)
    below = linear_b3n - upper
    return _power(upper, 1 / 2.4).mul_(1.055).sub_(0.055).add_(below, alpha=12.92)


SRGB = Encoding(xyz_from_rgb=_XYZ_FROM_RGB, linear=lambda levels_n: np.tile(linear_of_srgb(levels_n), (3, 1)), encode=_srgb_of_linear)


def _power(base: Tensor, exponent: float) -> Tensor:
    """base ** exponent in place, for base > 0, as exp(exponent · log(base))."""
    if base.device.type != "cpu":
        return base.log_().mul_(exponent).exp_()
    array = base.numpy()  # torch splits log and exp among its threads from 2,048 elements, which no strip is worth
    np.log(array, out=array)
    np.multiply(array, np.float32(exponent), out=array)
    np.exp(array, out=array)
    return base


def _mix(matrix_33: npt.NDArray[np.float64], planes_b3n: Tensor) -> Tensor:
    """A 3×3 matrix applied to three planes, without matmul, which autocast and TF32 would round."""
    first, second, third = planes_b3n.unbind(1)
    mixed_b3n = torch.empty_like(planes_b3n)
    for row, (m_1, m_2, m_3) in enumerate(matrix_33.tolist()):
        torch.mul(first, m_1, out=mixed_b3n[:, row]).add_(second, alpha=m_2).add_(third, alpha=m_3)
    return mixed_b3n


def _strips(*planes_bchw: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Matching views (b', c, n') of as many pixels as suit the device: several small pictures, or a part of a large one."""
    flat = [planes.flatten(2) for planes in planes_bchw]
    batch, _, pixels = flat[0].shape
    strip = STRIP_PIXELS if torch.get_num_threads() == 1 else SERIAL_PIXELS
    if flat[0].device.type != "cpu":
        strip = max(1, batch * pixels)
    pictures = max(1, strip // max(1, pixels))
    for first in range(0, batch, pictures):
        for start in range(0, pixels, strip):
            yield tuple(planes[first : first + pictures, :, start : start + strip] for planes in flat)


def _assert_planes(planes_bchw: Tensor, channels: int) -> None:
    shape = tuple(planes_bchw.shape)
    assert len(shape) == 4 and shape[1] == channels, f"expected (batch, {channels}, height, width), not {shape}"  # noqa: PT018
