"""The chroma planes of a JPEG whose luma is given: from ab to Cb and Cr, and from these to scans.

Knows nothing of the file that they go into. A JPEG's luma is not lightness: pure blue, of lightness 32, has the luma of a grey of
lightness 10. So Cb and Cr are looked up for the luma that stays and the ab that is wanted, and the lightness of a saturated
colour moves as far as its luma demands. The table is made once per colour space, from that space's own composition, which gives up
chroma where the gamut ends. Between its nodes it cannot lead out of the gamut either: YCbCr is linear in RGB, where the gamut is a
cube, and what is interpolated between colours of a convex body lies inside it.

Measured (one thread): table 14 ms, 1.7 MB; look-up 10 ns a pixel of chroma, so 2.5 a pixel of the picture; ab is off by 0.6
in the mean over all colours, of which rounding to 8 bits makes 0.3. Polynomials of ab for each luma take 6 ns, but miss by 2 to 6 levels.
Cb and Cr are encoded by Pillow as grey JPEGs of their own, whose entropy-coded data are scans of the coloured file: 6 ns a pixel each.
Source: ITU-T T.871 (YCbCr), ITU-T T.81 table K.2 (chroma quantization).
"""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image

from colorize.imaging.formats.jpeg_stream import Component, EntropyScan, read_stream
from colorize.imaging.space import RgbSpace

CHROMA_QUALITY = 90
"""In the measure of the Independent JPEG Group. Colour costs about a tenth of a file at it."""

_LARGEST_AB = 112.0
_AB_NODES = 29  # 8 units apart
_Y_NODES = 52  # 5 levels apart
_Y_LEVELS = 256
_L_STEPS = 101
_ROWS = _Y_LEVELS * _AB_NODES
_A_SCALE = np.float32((_AB_NODES - 1) / _LARGEST_AB / (_ROWS - 1))
_FIRST_ROW = ((2 * np.arange(_Y_LEVELS) * _AB_NODES + _AB_NODES - 1) / (_ROWS - 1) - 1).astype(np.float32)
"""Where grid_sample, which counts rows from -1 to 1, finds a = 0 of a luma."""
_TABLE_K2 = np.full((8, 8), 99)
_TABLE_K2[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]


class ChromaTable:
    """Cb and Cr of luma and ab, in the colour space of a profile."""

    def __init__(self, icc_profile: bytes | None) -> None:
        """`icc_profile`: of the file to be written, RGB; None is sRGB. Raises PictureError for a damaged profile."""
        axis = np.linspace(-_LARGEST_AB, _LARGEST_AB, _AB_NODES, dtype=np.float32)
        a, b = np.meshgrid(axis, axis, indexing="ij")
        L_hw = np.repeat(np.linspace(0, 100, _L_STEPS, dtype=np.float32)[:, None], a.size, axis=1)
        ab_2hw = np.ascontiguousarray(np.broadcast_to(np.stack([a.ravel(), b.ravel()])[:, None], (2, *L_hw.shape)))
        red, green, blue = np.moveaxis(RgbSpace(icc_profile).compose(L_hw, ab_2hw, bits=8).astype(np.float64), -1, 0)
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        planes = np.stack([(blue - luma) / 1.772, (red - luma) / 1.402])
        luma = np.maximum.accumulate(luma, axis=0)  # rounding leaves steps back
        wanted = np.linspace(0, 255, _Y_NODES)
        table = [[np.interp(wanted, luma[:, node], plane[:, node]) for node in range(a.size)] for plane in planes]
        table_2abY = np.array(table, dtype=np.float32).reshape(2, _AB_NODES, _AB_NODES, _Y_NODES)
        levels_2abY = F.interpolate(torch.from_numpy(table_2abY).flatten(1, 2), size=_Y_LEVELS, mode="linear", align_corners=True)
        # One picture, the levels below each other: of two dimensions, grid_sample takes a quarter of the time of three.
        self._table = levels_2abY.reshape(2, _AB_NODES, _AB_NODES, _Y_LEVELS).movedim(3, 1).flatten(1, 2).contiguous()[None]

    def __call__(self, luma_hw: npt.NDArray[np.uint8], ab_2hw: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """CbCr (2, h, w), neutral at 128, of luma 0…255 and ab."""
        place_hw2 = np.empty((*luma_hw.shape, 2), np.float32)  # numpy, for torch would split these among its threads
        np.multiply(ab_2hw[1], np.float32(1 / _LARGEST_AB), out=place_hw2[..., 0])
        a_hw = np.clip(ab_2hw[0], -_LARGEST_AB, _LARGEST_AB)  # or it would come among another luma's
        a_hw *= _A_SCALE
        np.add(a_hw, _FIRST_ROW[luma_hw], out=place_hw2[..., 1])
        place = torch.from_numpy(place_hw2)[None]
        cbcr_2hw: npt.NDArray[np.float32] = F.grid_sample(self._table, place, padding_mode="border", align_corners=True)[0].numpy()
        cbcr_2hw += np.float32(128.5)
        return np.clip(cbcr_2hw, 0, 255, out=cbcr_2hw).astype(np.uint8)


@lru_cache(maxsize=16)
def chroma_table(icc_profile: bytes | None) -> ChromaTable:
    """The table of a profile, kept: an archive has few profiles."""
    return ChromaTable(icc_profile)


def encode_plane(
    plane_hw: npt.NDArray[np.uint8], component: int, is_progressive: bool, restart_interval: int
) -> tuple[Component, tuple[EntropyScan, ...]]:
    """A plane of chroma as a component of that id, with sampling factors 1×1, and its scans.

    The restart interval is the luma's, because a change of it inside a file is more than some readers expect (JPEG XL's transcoder).
    """
    buffer = BytesIO()
    options = {"optimize": True, "progressive": is_progressive, "restart_marker_blocks": restart_interval}
    Image.fromarray(plane_hw).save(buffer, "JPEG", qtables=[_quantization()], **options)
    stream = read_stream(buffer.getvalue(), "a chroma plane")
    (encoded,) = stream.components
    return Component(component, 1, 1, encoded.quantization), tuple(scan.of(component) for scan in stream.scans)


def _quantization() -> list[int]:
    scale = 200 - 2 * CHROMA_QUALITY
    return [int(value) for value in np.clip((_TABLE_K2 * scale + 50) // 100, 1, 255).ravel()]
