"""sRGB, CIE LAB (D65, 2° observer) and JFIF YCbCr on torch tensors, and the gamut-safe way from lightness and chroma to 8 bits.

Knows nothing of files, networks and Ray. Works on any device, without gradients, and always in float32: autocast does not reach
it, because every step is elementwise arithmetic.

Measured in ns a pixel on one thread of a busy machine (Xeon with AVX-512, torch 2.13, numpy 2.4; the best of 30 alternating runs):
skimage's rgb2lab 127; rgb_to_lab of uint8 17, of floating point 31; lab_to_rgb 19; compose 29, and 500 more a pixel outside the
gamut. The cube root decides: rgb_to_lab takes 34 by torch.pow, 17 by exp(log/3), 14 by numpy's cbrt, which is that fast with
AVX-512 only. Hence exp(log), from a 256-entry linearisation table, in strips of 64k pixels, whose arrays stay in the cache.
Nothing here uses torch's threads: on cores that others use as well, waiting for each other in every small operation took 28 times
longer. Parallelism is the callers': Ray workers have one thread each anyway.
Formulas: IEC 61966-2-1 (sRGB), CIE 15:2004 (LAB), ITU-T T.871 (JFIF). The RGB→XYZ matrix is skimage's, each row divided by its
sum, which takes white as the reference white: greys come out neutral (to 1e-4), and no colour moves by more than 0.005.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

STRIP_PIXELS = 65_536
SERIAL_PIXELS = 10_240  # three planes of it stay under 32,768 elements, from where torch splits an operation among its threads
GAMUT_TOLERANCE = 1e-5  # in linear light, 1/30 of an 8-bit step at black: what float32 leaves of a colour on the border
BISECTION_STEPS = 14

_XYZ_FROM_RGB = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_XYZ_FROM_RGB /= _XYZ_FROM_RGB.sum(axis=1, keepdims=True)  # relative to white
_RGB_FROM_XYZ = np.linalg.inv(_XYZ_FROM_RGB)
_YCC_FROM_RGB = np.array([[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]])
_CUBE_LIMIT = (6 / 29) ** 3  # below it LAB's cube root gives way to its tangent
_CUBE_SLOPE = (29 / 6) ** 2 / 3


def _linear_table() -> npt.NDArray[np.float64]:
    srgb = np.arange(256) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _lightness_table() -> npt.NDArray[np.float32]:
    y = _linear_table()
    table = 116 * np.where(y > _CUBE_LIMIT, np.cbrt(y), _CUBE_SLOPE * y + 4 / 29) - 16
    return table.astype(np.float32)


_LINEAR_OF_BYTE = torch.from_numpy(_linear_table().astype(np.float32))
_LIGHTNESS_OF_GREY = _lightness_table()


def lightness_of_grey(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The lightness L, 0…100, of 8-bit sRGB greys of any shape: one look-up a pixel."""
    assert grey.dtype == np.uint8, f"grey must be uint8, not {grey.dtype}"
    return _LIGHTNESS_OF_GREY[grey]


@torch.no_grad()
def rgb_to_lab(rgb_b3hw: Tensor) -> Tensor:
    """sRGB (uint8, or floating point in 0…1) to LAB float32, L 0…100, ab about −110…110, within 0.01 of skimage's `rgb2lab`."""
    _assert_planes(rgb_b3hw, 3)
    if rgb_b3hw.dtype == torch.uint8:
        linear = _linear_of_byte
    else:
        assert rgb_b3hw.is_floating_point(), f"RGB must be uint8 or floating point, not {rgb_b3hw.dtype}"
        if rgb_b3hw.numel():
            low, high = (float(bound) for bound in rgb_b3hw.aminmax())
            assert -1e-3 <= low <= high <= 1 + 1e-3, f"floating-point RGB must lie in 0…1, not {low}…{high}"
        linear = _linear_of_srgb

    lab_b3hw = torch.empty(rgb_b3hw.shape, dtype=torch.float32, device=rgb_b3hw.device)
    for rgb_b3n, lab_b3n in _strips(rgb_b3hw, lab_b3hw):
        f_x, f_y, f_z = _lab_root(_mix(_XYZ_FROM_RGB, linear(rgb_b3n))).unbind(1)
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
        rgb_b3n.copy_(_srgb_of_linear(_linear_of_lab(lab_b3n[:, 0], lab_b3n[:, 1:])))
    return rgb_b3hw


@torch.no_grad()
def lab_to_ycbcr(lab_b3hw: Tensor) -> Tensor:
    """LAB to JFIF YCbCr float32, full range 0…255 with neutral chroma at 128; colours outside the gamut are not clipped."""
    _assert_planes(lab_b3hw, 3)
    ycbcr_b3hw = torch.empty(lab_b3hw.shape, dtype=torch.float32, device=lab_b3hw.device)
    for lab_b3n, ycbcr_b3n in _strips(lab_b3hw, ycbcr_b3hw):
        rgb_b3n = _srgb_of_linear(_linear_of_lab(lab_b3n[:, 0], lab_b3n[:, 1:]))
        ycbcr_b3n.copy_(_mix(255 * _YCC_FROM_RGB, rgb_b3n))
        ycbcr_b3n[:, 1:].add_(128)
    return ycbcr_b3hw


@torch.no_grad()
def compose(L_b1hw: Tensor, ab_b2hw: Tensor) -> Tensor:
    """Lightness and chroma to 8-bit sRGB, giving up chroma where the gamut ends, and never lightness.

    L in 0…100, ab of any size. Outside the gamut, a pixel's (a, b) is multiplied by a factor below 1, which takes it to where
    its line from the grey axis leaves the gamut: found by bisection, to 2⁻¹⁴, over those pixels alone. Hue stays. (By saturated
    yellow the gamut is slightly concave, by 3 levels of 255; there the line may leave it, return and leave: one of those it is.)
    Inside, this is the plain conversion. The result's lightness differs from L by at most 0.27: 0.261 that rounding to 8 bits
    costs the worst colour, (0, 29, 0), and what GAMUT_TOLERANCE clips.
    """
    _assert_planes(L_b1hw, 1)
    _assert_planes(ab_b2hw, 2)
    batch, _, height, width = L_b1hw.shape
    assert ab_b2hw.shape == (batch, 2, height, width), f"L is {tuple(L_b1hw.shape)}, but ab {tuple(ab_b2hw.shape)}"

    rgb_b3hw = torch.empty((batch, 3, height, width), dtype=torch.uint8, device=L_b1hw.device)
    for L_b1n, ab_b2n, rgb_b3n in _strips(L_b1hw, ab_b2hw, rgb_b3hw):
        linear_b3n = _linear_of_lab(L_b1n[:, 0], ab_b2n)
        outside_bn = _outside(linear_b3n)
        if outside_bn.any():
            a_n, b_n = (ab_b2n[:, axis].masked_select(outside_bn) for axis in (0, 1))
            linear_3n = _pulled_in(L_b1n[:, 0].masked_select(outside_bn), torch.stack([a_n, b_n]))
            for channel in range(3):
                linear_b3n[:, channel].masked_scatter_(outside_bn, linear_3n[channel])
        rgb_b3n.copy_(_srgb_of_linear(linear_b3n).mul_(255).add_(0.5).clamp_(0, 255))  # the conversion to uint8 truncates
    return rgb_b3hw


def _pulled_in(L_n: Tensor, ab_2n: Tensor) -> Tensor:
    """Colours outside the gamut, moved to its border at their own lightness and hue, as linear RGB (3, n)."""
    L_1n, ab_12n = L_n.float()[None], ab_2n.float()[None]
    factor_n, step = torch.zeros_like(L_n, dtype=torch.float32), 0.5
    for _ in range(BISECTION_STEPS):
        tried_n = factor_n + step
        is_outside_1n = _outside(_linear_of_lab(L_1n, ab_12n * tried_n))
        factor_n = torch.where(is_outside_1n[0], factor_n, tried_n)
        step /= 2
    return _linear_of_lab(L_1n, ab_12n * factor_n)[0]


def _outside(linear_b3n: Tensor) -> Tensor:
    low, high = linear_b3n.amin(1), linear_b3n.amax(1)
    return (low < -GAMUT_TOLERANCE) | (high > 1 + GAMUT_TOLERANCE)


def _linear_of_lab(L_bn: Tensor, ab_b2n: Tensor) -> Tensor:
    """Linear RGB (b, 3, …) of lightness (b, …) and chroma (b, 2, …)."""
    f_b3n = torch.empty((ab_b2n.shape[0], 3, *ab_b2n.shape[2:]), dtype=torch.float32, device=ab_b2n.device)
    f_y = torch.add(L_bn.float(), 16, out=f_b3n[:, 1]).div_(116)
    torch.add(f_y, ab_b2n[:, 0], alpha=1 / 500, out=f_b3n[:, 0])
    torch.sub(f_y, ab_b2n[:, 1], alpha=1 / 200, out=f_b3n[:, 2])
    upper = f_b3n.clamp(min=6 / 29)
    below = f_b3n.sub_(upper)
    xyz_b3n = (upper * upper).mul_(upper).add_(below, alpha=1 / _CUBE_SLOPE)
    return _mix(_RGB_FROM_XYZ, xyz_b3n)


def _lab_root(xyz_b3n: Tensor) -> Tensor:
    """LAB's f of XYZ relative to white, in place: the cube root, and its tangent below the limit."""
    upper = xyz_b3n.clamp(min=_CUBE_LIMIT)
    below = xyz_b3n.sub_(upper)
    return _power(upper, 1 / 3).add_(below, alpha=_CUBE_SLOPE)


def _linear_of_byte(rgb_b3n: Tensor) -> Tensor:
    table = _LINEAR_OF_BYTE.to(rgb_b3n.device)
    return table.index_select(0, rgb_b3n.int().flatten()).view(rgb_b3n.shape)


def _linear_of_srgb(rgb_b3n: Tensor) -> Tensor:
    rgb_b3n = rgb_b3n.float()
    upper = rgb_b3n.clamp(min=0.04045)
    below = rgb_b3n - upper
    return _power(upper.add_(0.055).div_(1.055), 2.4).add_(below, alpha=1 / 12.92)


def _srgb_of_linear(linear_b3n: Tensor) -> Tensor:
    upper = linear_b3n.clamp(min=0.0031308)
    below = linear_b3n - upper
    return _power(upper, 1 / 2.4).mul_(1.055).sub_(0.055).add_(below, alpha=12.92)


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
