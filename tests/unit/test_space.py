"""Colour spaces by their profiles: LittleCMS (through Pillow) as the reference, exactness of composition, and damaged profiles."""

import struct
from io import BytesIO

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from skimage.color import rgb2lab

from colorize.errors import PictureError
from colorize.imaging.colorspace import SRGB, lightness_of_grey, rgb_to_lab
from colorize.imaging.profile import make_profile, parametric_curve, read_profile, table_curve
from colorize.imaging.space import SRGB_PROFILE, RgbSpace

ADOBE = [(0.64, 0.33), (0.21, 0.71), (0.15, 0.06)]
P3 = [(0.68, 0.32), (0.265, 0.69), (0.15, 0.06)]
PROPHOTO = [(0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)]
BOUND = {8: 100 / 255, 16: 200 / 65535}
GAMMA_22 = b"curv" + bytes(4) + struct.pack(">IH", 1, 563)
GAMMA_18 = b"curv" + bytes(4) + struct.pack(">IH", 1, 461)
SRGB_PARA = parametric_curve(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def primaries(chromaticities: list[tuple[float, float]]) -> npt.NDArray[np.float64]:
    """XYZ relative to white (D65) of linear RGB with these primaries."""
    white = np.array([0.950456, 1, 1.088754])
    xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in chromaticities]).T
    scaled = xyz * np.linalg.solve(xyz, white)
    return np.asarray(scaled / white[:, None])


def grey_profile(trc: bytes, connection: bytes = b"XYZ ") -> bytes:
    """A grey profile, with nothing in it but its curve and white."""
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    directory = struct.pack(">I4sII4sII", 2, b"wtpt", 156, 20, b"kTRC", 176, len(trc))
    header = struct.pack(">I4sI4s4s4s12s4s", 176 + len(trc), b"", 0x02400000, b"mntr", b"GRAY", connection, bytes(12), b"acsp")
    return header + bytes(28) + struct.pack(">3i", 63190, 65536, 54061) + bytes(48) + directory + white + trc


def lut_profile(xyz_from_rgb: npt.NDArray[np.float64], gamma: float) -> bytes:
    """An RGB profile by a look-up table of two nodes an axis, which says what a matrix and a gamma would."""
    white = np.array([0.9642, 1, 0.8249])
    nodes = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), -1).reshape(8, 3)  # blue changes fastest
    xyz = (nodes @ xyz_from_rgb.T) * white  # close to Bradford's, and a space of its own
    table = np.tile(np.round(np.linspace(0, 1, 1024) ** gamma * 65535), 3)
    lut = b"mft2" + bytes(4) + struct.pack(">4B9i2H", 3, 3, 2, 0, *(65536 if i % 4 == 0 else 0 for i in range(9)), 1024, 2)
    lut += table.astype(">u2").tobytes() + np.round(np.clip(xyz, 0, 1.99) * 32768).astype(">u2").tobytes()
    lut += np.tile([0, 65535], 3).astype(">u2").tobytes()
    header = struct.pack(">I4sI4s4s4s12s4s", 144 + len(lut), b"", 0x02400000, b"mntr", b"RGB ", b"XYZ ", bytes(12), b"acsp")
    return header + bytes(28) + struct.pack(">3i", 63190, 65536, 54061) + bytes(48) + struct.pack(">I4sII", 1, b"A2B0", 144, len(lut)) + lut


PROFILES = {
    "Adobe RGB": make_profile(primaries(ADOBE), GAMMA_22, "a"),
    "Display P3": make_profile(primaries(P3), SRGB_PARA, "b"),
    "ProPhoto": make_profile(primaries(PROPHOTO), GAMMA_18, "c"),
    "a table": make_profile(primaries(ADOBE), table_curve(np.linspace(0, 1, 1024) ** 2.4), "d"),
    "a power of 2.6": make_profile(primaries(P3), parametric_curve(2.6), "e"),
}
GREYS = {
    "gamma 2.2": grey_profile(GAMMA_22),
    "gamma 1.8": grey_profile(GAMMA_18),
    "sRGB": grey_profile(SRGB_PARA),
    "dot gain": grey_profile(table_curve(np.linspace(0, 1, 256) ** 1.75 * 0.98 + 0.02 * np.linspace(0, 1, 256))),
}


def by_lcms(pixels: npt.NDArray[np.uint8], icc: bytes) -> npt.NDArray[np.uint8]:
    """Pixels as sRGB, by LittleCMS without its shortcuts."""
    source, target = ImageCms.ImageCmsProfile(BytesIO(icc)), ImageCms.createProfile("sRGB")
    flags = ImageCms.Flags.NOOPTIMIZE
    converted = ImageCms.profileToProfile(Image.fromarray(pixels), source, target, renderingIntent=1, outputMode="RGB", flags=flags)
    assert converted is not None
    return np.array(converted)


def dense_lab(bits: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Lightness (h, w) with many darks, and chroma (2, h, w) from none to far outside any gamut."""
    generator = np.random.default_rng(bits)
    L_hw = np.concatenate(
        [generator.uniform(0, 100, (300, 400)), generator.uniform(0, 4, (200, 400)), generator.uniform(99, 100, (40, 400))]
    )
    angle, radius = generator.uniform(0, 2 * np.pi, L_hw.shape), generator.uniform(0, 130, L_hw.shape) * generator.uniform(0, 1, L_hw.shape)
    ab_2hw = np.stack([radius * np.cos(angle), radius * np.sin(angle)])
    return L_hw.astype(np.float32), ab_2hw.astype(np.float32)


def test_without_a_profile_it_is_srgb_and_carries_none() -> None:
    space = RgbSpace()
    rgb_hwc = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert space.output_profile is None
    np.testing.assert_allclose(space.lab(rgb_hwc), rgb2lab(rgb_hwc).transpose(2, 0, 1), atol=0.01)
    np.testing.assert_allclose(space.lightness(rgb_hwc), space.lab(rgb_hwc)[0], atol=1e-4)
    np.testing.assert_array_equal(space.lightness(rgb_hwc[..., 0]), lightness_of_grey(rgb_hwc[..., 0]))
    lab = space.lab(rgb_hwc)
    assert np.array_equal(space.compose(lab[0], lab[1:], 8), rgb_hwc)


def test_a_profile_of_srgb_changes_nothing_and_is_kept() -> None:
    table = make_profile(SRGB.xyz_from_rgb, table_curve(SRGB.lightness_table(8) * 0 + SRGB.linear_table(8)[0]), "sRGB by table")
    by_pillow = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for icc in (SRGB_PROFILE, table, by_pillow):
        space = RgbSpace(icc)
        assert space.encoding is SRGB
        assert space.output_profile == icc


@pytest.mark.parametrize("icc", PROFILES.values(), ids=PROFILES.keys())
def test_colors_of_a_profile_have_the_lightness_that_lcms_gives_them(icc: bytes) -> None:
    generator = np.random.default_rng(2)
    grey = generator.integers(0, 256, (100, 400, 1))
    rgb_hwc = np.clip(grey + generator.normal(0, 25, (100, 400, 3)), 0, 255).astype(np.uint8)
    srgb = by_lcms(rgb_hwc, icc)
    inside = ((srgb > 0) & (srgb < 255)).all(2)
    assert inside.mean() > 0.6
    expected, lab = RgbSpace().lab(srgb), RgbSpace(icc).lab(rgb_hwc)
    assert np.abs(lab[0] - expected[0])[inside].max() < 0.5
    assert np.abs(lab - expected)[:, inside].mean() < 0.25
    np.testing.assert_allclose(RgbSpace(icc).lightness(rgb_hwc), lab[0], atol=1e-4)


@pytest.mark.parametrize("icc", PROFILES.values(), ids=PROFILES.keys())
def test_a_profile_is_kept_and_its_greys_are_neutral(icc: bytes) -> None:
    space = RgbSpace(icc)
    assert space.output_profile == icc
    grey = np.arange(256, dtype=np.uint8)[None]
    assert np.abs(space.lab(grey)[1:]).max() < 1e-3
    np.testing.assert_allclose(space.lab(grey)[0], space.lightness(grey), atol=1e-4)
    rgb_hwc = space.compose(space.lightness(grey), np.zeros((2, 1, 256), np.float32), 8)
    level_of_black = 1 if space.lightness(grey)[0, 1] == 0 else 0  # in a coarse table, level 1 can be as black as 0
    assert np.array_equal(rgb_hwc[:, level_of_black + 1 :], np.dstack([grey] * 3)[:, level_of_black + 1 :])
    assert (rgb_hwc[:, : level_of_black + 1] == 0).all()


@pytest.mark.parametrize(
    "icc", [None, *PROFILES.values(), *GREYS.values()], ids=["sRGB", *PROFILES.keys(), *(f"grey {name}" for name in GREYS)]
)
@pytest.mark.parametrize("bits", [8, 16])
def test_composition_keeps_lightness_within_the_bound(icc: bytes | None, bits: int) -> None:
    space = RgbSpace(icc)
    L_hw, ab_2hw = dense_lab(bits)
    rgb_hwc = space.compose(L_hw, ab_2hw, bits)
    assert rgb_hwc.dtype == (np.uint8 if bits == 8 else np.uint16)
    lab = RgbSpace(space.output_profile).lab(rgb_hwc)
    assert np.abs(lab[0] - L_hw).max() <= BOUND[bits]
    asked, kept = np.hypot(*ab_2hw), np.hypot(*lab[1:])
    assert (kept <= asked + (8 if bits == 8 else 0.5)).all(), "chroma is only ever given up, but for the rounding of darks"
    gentle = (L_hw > 25) & (L_hw < 85) & (asked < 15)
    assert np.abs(lab[1:] - ab_2hw)[:, gentle].max() < (2 if bits == 8 else 0.01)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("icc", [None, *GREYS.values()], ids=["none", *GREYS.keys()])
def test_greys_return_exactly(icc: bytes | None, bits: int) -> None:
    space = RgbSpace(icc)
    grey = np.arange(2**bits, dtype=np.uint8 if bits == 8 else np.uint16).reshape(16, -1)
    L_hw = space.lightness(grey)
    rgb_hwc = space.compose(L_hw, np.zeros((2, *grey.shape), np.float32), bits)
    assert np.abs(rgb_hwc.astype(int) - grey[..., None]).max() <= (0 if bits == 8 else 6), "below 1e-5 of light, levels look alike"
    assert np.array_equal(rgb_hwc[L_hw > 0.5], np.repeat(grey[L_hw > 0.5][:, None], 3, axis=1))


@pytest.mark.parametrize("icc", GREYS.values(), ids=GREYS.keys())
def test_a_grey_profile_becomes_one_of_color_with_the_same_lightness(icc: bytes) -> None:
    space = RgbSpace(icc)
    grey = np.arange(256, dtype=np.uint8)[None]
    shown = RgbSpace().lightness(by_lcms(grey, icc))
    assert np.abs(space.lightness(grey) - shown).max() < 0.5
    assert space.output_profile is not None
    assert space.output_profile[16:20] == b"RGB "
    shown_again = RgbSpace().lightness(by_lcms(np.dstack([grey] * 3), space.output_profile))
    assert np.abs(shown_again - shown).max() < 0.5
    np.testing.assert_allclose(RgbSpace(space.output_profile).lightness(np.dstack([grey] * 3)), space.lightness(grey), atol=1e-4)
    assert space.output_profile == RgbSpace(icc).output_profile, "the same bytes every time"


def test_a_grey_profile_that_gives_lightness_is_understood() -> None:
    space = RgbSpace(grey_profile(GAMMA_18, b"Lab "))
    grey = np.arange(256, dtype=np.uint8)[None]
    np.testing.assert_allclose(space.lightness(grey)[0], 100 * (np.arange(256) / 255) ** (461 / 256), atol=0.02)


def test_gray_pixels_in_a_color_profile_and_the_reverse() -> None:
    grey = np.arange(256, dtype=np.uint8)[None]
    adobe = RgbSpace(PROFILES["Adobe RGB"])
    np.testing.assert_allclose(adobe.lightness(grey), adobe.lightness(np.dstack([grey] * 3)), atol=1e-4)
    toned = RgbSpace(GREYS["gamma 1.8"])
    np.testing.assert_allclose(toned.lightness(np.dstack([grey] * 3)), toned.lightness(grey), atol=1e-4)


def test_float_composition_is_the_same_unrounded() -> None:
    L_hw, ab_2hw = dense_lab(8)
    for icc in (None, PROFILES["Adobe RGB"]):
        space = RgbSpace(icc)
        rgb_b3hw = space.compose_float(torch.from_numpy(L_hw)[None, None], torch.from_numpy(ab_2hw)[None])
        assert rgb_b3hw.dtype == torch.float32
        assert 0 <= float(rgb_b3hw.min()) <= float(rgb_b3hw.max()) <= 1
        rounded = np.round(rgb_b3hw[0].numpy().transpose(1, 2, 0) * 65535)
        assert np.abs(rounded - space.compose(L_hw, ab_2hw, 16)).max() <= 1


def test_a_wide_gamut_holds_colors_that_srgb_gives_up() -> None:
    L_hw, ab_2hw = np.full((1, 1), 60, np.float32), np.array([-80.0, 60.0], np.float32).reshape(2, 1, 1)
    chroma = {name: np.hypot(*RgbSpace(icc).lab(RgbSpace(icc).compose(L_hw, ab_2hw, 16))[1:])[0, 0] for name, icc in PROFILES.items()}
    plain = np.hypot(*RgbSpace().lab(RgbSpace().compose(L_hw, ab_2hw, 16))[1:])[0, 0]
    assert plain < 87
    assert chroma["ProPhoto"] == pytest.approx(100, abs=0.1)
    assert chroma["Adobe RGB"] > plain + 5


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_profile_of_look_up_tables_is_taken_to_srgb(dtype: type) -> None:
    icc = lut_profile(primaries(ADOBE), 2.2)
    assert read_profile(icc, "x").curves == ()
    space = RgbSpace(icc)
    assert space.output_profile == SRGB_PROFILE
    rgb_hwc = np.random.default_rng(3).integers(90, 170, (40, 50, 3), dtype=np.uint8)
    expected = RgbSpace().lab(by_lcms(rgb_hwc, icc))
    pixels = rgb_hwc if dtype == np.uint8 else rgb_hwc.astype(np.uint16) * 257
    assert np.abs(space.lab(pixels)[0] - expected[0]).max() < 0.5
    np.testing.assert_allclose(space.lightness(pixels), space.lab(pixels)[0], atol=1e-3)
    grey = np.arange(256, dtype=dtype)[None] * (1 if dtype == np.uint8 else 257)
    L_hw = space.lightness(grey.astype(dtype))
    assert (np.diff(L_hw) > -0.01).all()
    assert np.abs(space.lightness(grey)[0] - RgbSpace(PROFILES["Adobe RGB"]).lightness(grey)[0]).max() < 1.5
    back = RgbSpace(space.output_profile).lightness(space.compose(L_hw, np.zeros((2, *L_hw.shape), np.float32), 16))
    assert np.abs(back - L_hw).max() <= BOUND[16]


def test_a_matrix_whose_white_is_not_white_is_left_to_lcms() -> None:
    icc = bytearray(PROFILES["Adobe RGB"])
    tag = icc.index(b"rXYZ")
    (offset,) = struct.unpack_from(">I", icc, tag + 4)
    struct.pack_into(">i", icc, offset + 8, 30_000)
    space = RgbSpace(bytes(icc))
    assert space.output_profile == SRGB_PROFILE
    rgb_hwc = np.random.default_rng(3).integers(90, 170, (40, 50, 3), dtype=np.uint8)
    assert np.abs(space.lightness(rgb_hwc) - RgbSpace().lightness(by_lcms(rgb_hwc, bytes(icc)))).max() < 0.5


def changed(icc: bytes, position: int, value: bytes) -> bytes:
    return icc[:position] + value + icc[position + len(value) :]


def of_tag(icc: bytes, tag: bytes) -> int:
    (offset,) = struct.unpack_from(">I", icc, icc.index(tag, 128) + 4)
    return int(offset)


A = PROFILES["a table"]


@pytest.mark.parametrize(
    ("icc", "reason"),
    [
        (b"", "is cut off: it has 0 bytes of at least 132"),
        (A[:-1], f"is cut off: it has {len(A) - 1} bytes of {len(A)}"),
        (A + bytes(17 << 20), "has 17"),
        (changed(A, 36, b"nope"), "is damaged: its signature is missing"),
        (changed(A, 16, b"CMYK"), "is not for grey or RGB pictures, but mntr of CMYK"),
        (changed(A, 12, b"link"), "is not for grey or RGB pictures, but link of RGB"),
        (changed(A, 20, b"Luv "), "is damaged: it connects to Luv"),
        (changed(A, 128, b"\xff\xff\xff\xff"), "is damaged: its table of tags is longer than itself"),
        (changed(A, A.index(b"rTRC"), b"xTRC"), "is damaged: its tag rTRC is missing or lies outside it"),
        (changed(A, A.index(b"gTRC") + 4, b"\x7f\xff\xff\xff"), "is damaged: its tag gTRC is missing or lies outside it"),
        (changed(A, of_tag(A, b"bXYZ"), b"text"), "is damaged: a colorant is not of the type XYZ"),
        (changed(A, of_tag(A, b"rTRC"), b"text"), "is damaged: a tone curve is of the type text"),
        (changed(A, of_tag(A, b"rTRC") + 8, b"\0\0\xff\xff"), "is damaged: a tone curve has 2060 bytes for 65535 entries"),
        (changed(A, of_tag(A, b"rTRC") + 900, b"\0" * 300), "is damaged: a tone curve does not rise from black to white"),
        (make_profile(primaries(P3), parametric_curve(-2.0), "x"), "is damaged: a tone curve does not rise from black to white"),
        (make_profile(primaries(P3), parametric_curve(2.0, 0, 1), "x"), "is damaged: a parametric curve divides by zero"),
        (make_profile(primaries(P3), b"para" + bytes(4) + b"\0\x09" + bytes(10), "x"), "is damaged: there is no parametric curve 9"),
        (make_profile(primaries(P3), b"para" + bytes(4) + b"\0\x04" + bytes(10), "x"), "is damaged: unpack_from requires"),
    ],
)
def test_a_damaged_profile_is_refused_with_its_reason(icc: bytes, reason: str) -> None:
    with pytest.raises(PictureError) as caught:
        RgbSpace(icc, "scan.tif")
    message = str(caught.value)
    assert message.startswith(f"scan.tif: has an ICC profile that {reason}")
    assert message.endswith("; mend or remove the profile")
    assert "\n" not in message


@pytest.mark.parametrize("kind", range(5))
def test_parametric_curves_are_those_of_lcms(kind: int) -> None:
    parameters = [(2.2,), (2.4, 0.9, 0.1), (2.1, 0.9, 0.05, 0.05), (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)]
    parameters.append((2.2, 0.95, 0.02, 0.2, 0.03, 0.03, 0.01))
    icc = make_profile(SRGB.xyz_from_rgb, parametric_curve(*parameters[kind]), "x")
    grey = np.dstack([np.arange(256, dtype=np.uint8)[None]] * 3)
    assert np.abs(RgbSpace(icc).lightness(grey) - RgbSpace().lightness(by_lcms(grey, icc))).max() < 0.5


@settings(max_examples=300)
@given(
    st.sampled_from([*PROFILES.values(), *GREYS.values(), lut_profile(primaries(P3), 2.0), SRGB_PROFILE]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255), st.booleans()), max_size=6),
    st.floats(0.3, 1),
)
def test_garbage_is_refused_or_understood_and_nothing_else(icc: bytes, changes: list[tuple[float, int, bool]], kept: float) -> None:
    data = bytearray(icc)
    for place, value, in_header in changes:
        data[int(place * (min(360, len(data)) if in_header else len(data)))] = value
    try:
        space = RgbSpace(bytes(data[: int(kept * len(data)) if kept < 0.9 else len(data)]))
    except PictureError:
        return
    assert space.output_profile is not None
    rgb_hwc = np.random.default_rng(3).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    lab = space.lab(rgb_hwc)
    assert np.isfinite(lab).all()
    assert np.isfinite(space.lightness(rgb_hwc[..., 0])).all()
    assert space.compose(lab[0], lab[1:], 8).shape == (4, 5, 3)


def test_a_made_profile_is_read_by_lcms_and_says_what_was_asked() -> None:
    for icc in (PROFILES["Adobe RGB"], PROFILES["Display P3"]):
        profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        assert ImageCms.getProfileDescription(profile).strip() in ("a", "b")
        assert profile.profile.media_white_point[0] == pytest.approx((0.9642, 1, 0.8249), abs=1e-4)
    read = read_profile(PROFILES["Display P3"], "x").xyz_from_rgb
    assert read is not None
    np.testing.assert_allclose(read, primaries(P3), atol=1e-4)


def test_lab_of_sixteen_bits_is_that_of_eight() -> None:
    rgb_hwc = np.random.default_rng(4).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    for icc in (None, PROFILES["ProPhoto"]):
        space = RgbSpace(icc)
        np.testing.assert_allclose(space.lab(rgb_hwc.astype(np.uint16) * 257), space.lab(rgb_hwc), atol=1e-3)
    lab = rgb_to_lab(torch.from_numpy(rgb_hwc.transpose(2, 0, 1).copy())[None])
    np.testing.assert_allclose(RgbSpace().lab(rgb_hwc.astype(np.uint16) * 257), lab[0].numpy(), atol=1e-3)
