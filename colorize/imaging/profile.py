"""ICC profiles: those that a matrix and curves describe, read; and small ones, made.

Knows nothing of pixels. What is read is the little that colours need (ICC.1:2022, sections 7, 8 and 10.6, 10.18): a colour space, the
colorants of an RGB profile, and tone curves; a profile that is described by look-up tables is only recognised, `colorize.imaging.space`
leaves it to LittleCMS. Every offset and count of a profile is checked against its length, so that garbage ends as PictureError.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from colorize.errors import PictureError

Curve = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
"""Linear light of levels in 0…1, of any shape; rising."""

MAX_PROFILE_BYTES = 16 << 20
MAX_TAGS = 1_000
WHITE_TOLERANCE = 0.02
"""By how much the colorants may miss the white of the connection space, which is X + Y + Z's error relative to white."""

_D50 = np.array([0.9642, 1.0, 0.8249])  # the connection space's white, ICC.1 section 7.2.16
_D65 = np.array([0.950456, 1.0, 1.088754])  # the white that colorspace.py and skimage measure against
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D65_FROM_D50 = np.linalg.inv(_BRADFORD) @ np.diag((_BRADFORD @ _D65) / (_BRADFORD @ _D50)) @ _BRADFORD
_TABLES = (b"A2B0", b"A2B1", b"A2B2", b"D2B0", b"D2B1", b"D2B2", b"D2B3")
_PARAMETERS = (1, 3, 4, 5, 7)  # of each parametric curve type
_MADE = (2026, 1, 1, 0, 0, 0)  # a fixed date: the same picture makes the same file on any day


@dataclass(frozen=True, kw_only=True, eq=False)
class Profile:
    """What a profile says of the numbers of a file."""

    is_grey: bool
    """Whether it is for one channel; otherwise it is for three, RGB."""
    curves: tuple[Curve, ...]
    """One of grey, three of RGB; none where look-up tables describe the colours."""
    xyz_from_rgb: npt.NDArray[np.float64] | None
    """(3, 3): XYZ relative to white (D65, by Bradford) of linear RGB, its rows' sums 1; None without curves or colorants."""
    trc: bytes
    """The tag of the only or the green curve, to be carried into another profile."""


def read_profile(icc: bytes, name: str) -> Profile:
    """What `icc` says. Raises PictureError, beginning with `name`, where it is damaged or not for grey or RGB."""

    def fail(reason: str) -> PictureError:
        return PictureError(f"{name}: has an ICC profile that {reason}; mend or remove the profile")

    if len(icc) < 132:
        raise fail(f"is cut off: it has {len(icc)} bytes of at least 132")
    if len(icc) > MAX_PROFILE_BYTES:
        raise fail(f"has {len(icc)} bytes, more than the {MAX_PROFILE_BYTES} that are read")
    if icc[36:40] != b"acsp":
        raise fail("is damaged: its signature is missing")
    (size,) = struct.unpack_from(">I", icc)
    if size > len(icc):
        raise fail(f"is cut off: it has {len(icc)} bytes of {size}")
    space, connection = icc[16:20], icc[20:24]
    if space not in (b"RGB ", b"GRAY") or icc[12:16] not in (b"scnr", b"mntr", b"prtr", b"spac"):
        raise fail(f"is not for grey or RGB pictures, but {_shown(icc[12:16])} of {_shown(space)}")
    if connection not in (b"XYZ ", b"Lab "):
        raise fail(f"is damaged: it connects to {_shown(connection)}")
    tags = _tags(icc)
    if tags is None:
        raise fail("is damaged: its table of tags is longer than itself")
    is_grey = space == b"GRAY"
    if any(tag in tags for tag in _TABLES) and not (is_grey and b"kTRC" in tags):
        return Profile(is_grey=is_grey, curves=(), xyz_from_rgb=None, trc=b"")
    try:
        if is_grey:
            curve = _curve(tags[b"kTRC"])
            trc = tags[b"kTRC"]
            if connection == b"Lab ":  # there a grey curve gives L*, not luminance: ICC.1 section 8.3.4, as LittleCMS has it
                curve, trc = _luminance_of(curve)
            return Profile(is_grey=True, curves=(curve,), xyz_from_rgb=None, trc=trc)
        curves = tuple(_curve(tags[tag]) for tag in (b"rTRC", b"gTRC", b"bTRC"))
        colorants = np.stack([_xyz(tags[tag]) for tag in (b"rXYZ", b"gXYZ", b"bXYZ")], axis=1)
    except KeyError as error:
        raise fail(f"is damaged: its tag {_shown(error.args[0])} is missing or lies outside it") from error
    except (ValueError, struct.error) as error:
        raise fail(f"is damaged: {error}") from error
    relative = (_D65_FROM_D50 @ colorants) / _D65[:, None]
    sums = relative.sum(axis=1)
    if connection != b"XYZ " or np.abs(sums - 1).max() > WHITE_TOLERANCE or abs(np.linalg.det(relative)) < 1e-4:
        return Profile(is_grey=False, curves=(), xyz_from_rgb=None, trc=b"")
    return Profile(is_grey=False, curves=curves, xyz_from_rgb=relative / sums[:, None], trc=tags[b"gTRC"])


def make_profile(xyz_from_rgb: npt.NDArray[np.float64], trc: bytes, description: str) -> bytes:
    """A small RGB profile: primaries as `Profile.xyz_from_rgb`, one curve for all channels as a tag (`curv` or `para`), ASCII text.

    The same arguments make the same bytes. A parametric curve makes it version 4, any other one version 2, which all programs read.
    """
    colorants = np.linalg.inv(_D65_FROM_D50) @ (xyz_from_rgb * _D65[:, None])
    fixed = np.round(colorants * 65536).astype(int)
    fixed[:, 1] += np.round(_D50 * 65536).astype(int) - fixed.sum(axis=1)  # so that white is white to the last bit
    is_v4 = trc[:4] == b"para"
    text = _localized if is_v4 else _text
    tags = {
        b"desc": _localized(description) if is_v4 else _described(description),
        b"cprt": text("No copyright"),
        b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3i", *np.round(_D50 * 65536).astype(int).tolist()),
        **{tag: b"XYZ " + bytes(4) + struct.pack(">3i", *fixed[:, axis].tolist()) for axis, tag in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))},
    }
    directory, body = b"", b""
    start = 128 + 4 + 12 * (len(tags) + 3)
    for signature, content in tags.items():
        directory += signature + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    for signature in (b"rTRC", b"gTRC", b"bTRC"):
        directory += signature + struct.pack(">II", start + len(body), len(trc))
    body += trc + bytes(-len(trc) % 4)
    header = struct.pack(
        ">I4sI4s4s4s6H4s", start + len(body), b"", 0x04200000 if is_v4 else 0x02400000, b"mntr", b"RGB ", b"XYZ ", *_MADE, b"acsp"
    )
    header += bytes(28) + struct.pack(">3i", *np.round(_D50 * 65536).astype(int).tolist()) + bytes(48)
    return header + struct.pack(">I", len(tags) + 3) + directory + body


def parametric_curve(*parameters: float) -> bytes:
    """The tag of a parametric curve of 1, 3, 4, 5 or 7 parameters (g a b c d e f), as `make_profile` takes it."""
    kind = _PARAMETERS.index(len(parameters))
    return b"para" + bytes(4) + struct.pack(">HH", kind, 0) + struct.pack(f">{len(parameters)}i", *(round(p * 65536) for p in parameters))


def table_curve(levels_n: npt.NDArray[np.float64]) -> bytes:
    """The tag of a curve through evenly spaced levels in 0…1, as `make_profile` takes it."""
    entries = np.round(np.clip(levels_n, 0, 1) * 65535).astype(">u2")
    return b"curv" + bytes(4) + struct.pack(">I", len(entries)) + entries.tobytes()


def _tags(icc: bytes) -> dict[bytes, bytes] | None:
    """The contents of the tags that lie inside the profile; None where not even their table does."""
    (count,) = struct.unpack_from(">I", icc, 128)
    if count > MAX_TAGS or 132 + 12 * count > len(icc):
        return None
    tags: dict[bytes, bytes] = {}
    for position in range(132, 132 + 12 * count, 12):
        signature, offset, size = struct.unpack_from(">4sII", icc, position)
        if size >= 8 and offset + size <= len(icc) and signature not in tags:
            tags[signature] = icc[offset : offset + size]
    return tags


def _xyz(tag: bytes) -> npt.NDArray[np.float64]:
    if tag[:4] != b"XYZ " or len(tag) < 20:
        raise ValueError("a colorant is not of the type XYZ")
    return np.array(struct.unpack_from(">3i", tag, 8)) / 65536


def _curve(tag: bytes) -> Curve:
    """ValueError or struct.error where the tag is not a rising curve."""
    curve = _parametric(tag) if tag[:4] == b"para" else _sampled(tag)
    levels = curve(np.linspace(0, 1, 4096))
    if not np.isfinite(levels).all() or levels[-1] - levels[0] < 0.5 or np.diff(levels).min() < -1e-3:
        raise ValueError("a tone curve does not rise from black to white")
    return curve


def _sampled(tag: bytes) -> Curve:
    if tag[:4] != b"curv" or len(tag) < 12:
        raise ValueError(f"a tone curve is of the type {_shown(tag[:4])}")
    (count,) = struct.unpack_from(">I", tag, 8)
    if 12 + 2 * count > len(tag):
        raise ValueError(f"a tone curve has {len(tag)} bytes for {count} entries")
    if count == 0:
        return lambda levels: levels.copy()
    entries = np.frombuffer(tag, ">u2", count, 12).astype(np.float64)
    if count == 1:
        gamma = float(entries[0]) / 256
        return lambda levels: np.power(levels, gamma)
    places, values = np.linspace(0, 1, count), np.maximum.accumulate(entries / 65535)
    if np.abs(values - entries / 65535).max() > 1e-3:
        raise ValueError("a tone curve does not rise from black to white")
    return lambda levels: np.interp(levels, places, values)


def _parametric(tag: bytes) -> Curve:
    (kind,) = struct.unpack_from(">H", tag, 8)
    if kind >= len(_PARAMETERS):
        raise ValueError(f"there is no parametric curve {kind}")
    count = _PARAMETERS[kind]
    g, a, b, c, d, e, f = [value / 65536 for value in struct.unpack_from(f">{count}i", tag, 12)] + [0.0] * (7 - count)
    if kind == 0:
        a, b, c, d = 1.0, 0.0, 0.0, 0.0
    if kind in (1, 2):
        if a == 0:
            raise ValueError("a parametric curve divides by zero")
        c, d, e, f = 0.0, -b / a, c, c  # type 2's constant c is type 4's e and f

    def curve(levels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        with np.errstate(all="ignore"):  # what is not finite is seen by `_curve`
            upper = np.maximum(a * levels + b, 0) ** g + e
        light: npt.NDArray[np.float64] = np.clip(np.where(levels >= d, upper, c * levels + f), 0, 1)
        return light

    return curve


def _luminance_of(lightness: Curve) -> tuple[Curve, bytes]:
    """A curve of L*/100 as one of luminance, sampled as finely as a profile can hold: (the curve, its tag)."""
    f = (100 * lightness(np.linspace(0, 1, 4096)) + 16) / 116
    tag = table_curve(np.where(f > 6 / 29, f**3, (f - 4 / 29) * 3 * (6 / 29) ** 2))
    return _curve(tag), tag


def _text(text: str) -> bytes:
    return b"text" + bytes(4) + text.encode("ascii") + b"\0"


def _described(text: str) -> bytes:
    """Version 2's type for a description: ASCII, and no other writing."""
    return b"desc" + bytes(4) + struct.pack(">I", len(text) + 1) + text.encode("ascii") + b"\0" + bytes(12 + 67)


def _localized(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(encoded), 28) + encoded


def _shown(signature: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "?" for byte in signature).strip() or "nothing"
