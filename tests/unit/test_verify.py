"""`colorize verify` and `colorize restore`: the proof that lightness stays, and the original that comes back."""

import json
import os
import struct
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from colorize import Colorizer, PictureError, colorize_scan, open_scan
from colorize.cli.main import main
from colorize.imaging.formats.jpeg_luma import restore_jpeg
from colorize.imaging.formats.jpeg_stream import is_icc, read_stream
from colorize.imaging.metadata import read_note
from colorize.imaging.verify import verify
from tests.models import small_model
from tests.pictures import encoded, grey_scene, rgb_scene

DATA = Path(os.environ.get("COLORIZE_TEST_DATA", "../shared/data"))
COLORIZER = Colorizer(small_model(), device="cpu", precision="fp32")
GREY_JPEG = encoded(grey_scene(50, 70), "JPEG", quality=90)
GREY_PNG = encoded(grey_scene(50, 70), "PNG")
GREY_16 = encoded(grey_scene(50, 70).astype(np.uint16) * 256 + 77, "PNG")


def colored(data: bytes) -> bytes:
    return colorize_scan(open_scan(data), COLORIZER)


@pytest.mark.parametrize("data", [GREY_JPEG, encoded(rgb_scene(50, 70), "JPEG"), encoded(rgb_scene(9, 5), "JPEG", progressive=True)])
def test_a_jpeg_is_proved_by_its_coefficients(data: bytes) -> None:
    verdict = verify(open_scan(data), open_scan(colored(data)))
    assert (verdict.method, verdict.luma_identical, verdict.max_lightness_error, verdict.is_faithful) == ("dct", True, 0.0, True)


@pytest.mark.parametrize(("data", "limit"), [(GREY_PNG, 1 / 255), (encoded(rgb_scene(), "TIFF"), 1 / 255), (GREY_16, 2 / 65535)])
def test_other_formats_are_proved_by_their_pixels(data: bytes, limit: float) -> None:
    verdict = verify(open_scan(data), open_scan(colored(data)))
    assert verdict.method == "pixels"
    assert verdict.is_faithful
    assert verdict.max_lightness_error <= limit


def test_a_changed_picture_is_found() -> None:
    other_hw = grey_scene(50, 70).copy()
    other_hw[10, 20] ^= 16
    assert not verify(open_scan(GREY_PNG), open_scan(encoded(other_hw, "PNG"))).is_faithful
    verdict = verify(open_scan(GREY_JPEG), open_scan(encoded(other_hw, "JPEG", quality=90)))
    assert (verdict.method, verdict.luma_identical, verdict.is_faithful) == ("dct", False, False)
    assert verdict.max_lightness_error > 0
    again = verify(open_scan(GREY_JPEG), open_scan(encoded(np.array(Image.open(BytesIO(GREY_JPEG))), "JPEG", quality=60)))
    assert not again.luma_identical, "encoded anew, with another quantisation table"


def test_pictures_that_cannot_be_compared() -> None:
    with pytest.raises(PictureError, match=r"^b: has 60×50 pixels, and a has 70×50$"):
        verify(open_scan(GREY_PNG, name="a"), open_scan(encoded(grey_scene(50, 60), "PNG"), name="b"))


def test_the_command_says_and_exits_with_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original, result, other = tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "c.jpg"
    original.write_bytes(GREY_JPEG)
    result.write_bytes(colored(GREY_JPEG))
    other.write_bytes(encoded(grey_scene(50, 70), "JPEG", quality=50))
    assert main(["verify", str(original), str(result), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == {"method": "dct", "luma_identical": True, "max_lightness_error": 0.0}
    assert main(["verify", str(original), str(other), "--json", str(tmp_path / "found.json")]) == 1
    assert json.loads((tmp_path / "found.json").read_text())["luma_identical"] is False
    assert "the luma's coefficients are not the original's" in capsys.readouterr().out
    assert main(["verify", str(original), str(tmp_path / "none.jpg")]) == 1
    assert capsys.readouterr().err == f"colorize: {tmp_path / 'none.jpg'}: there is no such file\n"


@pytest.mark.parametrize("name", ["a.jpg", "b.jpg", "link.jpg"])
def test_the_findings_never_overwrite_a_picture(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for file in files:
        file.write_bytes(GREY_JPEG)
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    assert main(["verify", *map(str, files), "--json", str(tmp_path / name)]) == 1
    assert capsys.readouterr().err == (
        f"colorize: --json {tmp_path / name}: is one of the pictures, which is not overwritten: give another name\n"
    )
    assert all(file.read_bytes() == GREY_JPEG for file in files)


def test_restore_gives_the_original_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result, restored = tmp_path / "b.jpg", tmp_path / "c.jpg"
    result.write_bytes(colored(GREY_JPEG))
    assert main(["restore", str(result), "-o", str(restored)]) == 0
    back = Image.open(restored)
    assert back.mode == "L"
    assert np.array_equal(np.array(back), np.array(Image.open(BytesIO(GREY_JPEG))))
    before = restored.read_bytes()
    assert main(["restore", str(result), "-o", str(restored)]) == 1
    assert "nothing is overwritten" in capsys.readouterr().err
    assert restored.read_bytes() == before
    (tmp_path / "d.png").write_bytes(colored(GREY_PNG))
    assert main(["restore", str(tmp_path / "d.png"), "-o", str(tmp_path / "e.jpg")]) == 1
    assert "is a PNG file" in capsys.readouterr().err
    assert not (tmp_path / "e.jpg").exists()


def grey_profile() -> bytes:
    """A grey profile of gamma 2.2, as Photoshop writes them."""
    trc = struct.pack(">4sIIH", b"curv", 0, 1, int(2.2 * 256)) + b"\0\0"
    white = struct.pack(">4sIiii", b"XYZ ", 0, 63190, 65536, 54061)
    tags = struct.pack(">I4sII4sII", 2, b"wtpt", 156, 20, b"kTRC", 176, 14)
    header = struct.pack(">I4sI4s4s4s12s4s", 176 + len(trc), b"", 0x02400000, b"mntr", b"GRAY", b"XYZ ", bytes(12), b"acsp") + bytes(28)
    return header + struct.pack(">iii", 63190, 65536, 54061) + bytes(48) + tags + white + trc


def restored(data: bytes) -> bytes:
    return restore_jpeg(colored(data), "x")


def segments(data: bytes) -> tuple[tuple[int, bytes], ...]:
    return read_stream(data, "x").metadata


def xmp(inside: str, attributes: str = "", encoding: str = "utf-8") -> bytes:
    """A packet as programs write them, with some padding."""
    rdf = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
    head = "<?xpacket begin='\ufeff' id='W5M0MpCehiHzreSzNTczkc9d'?>"
    text = (
        f"{head}<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='{rdf}'>{inside}</rdf:RDF></x:xmpmeta>{' ' * 300}<?xpacket end='w'?>"
    )
    return text.encode(encoding)


IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
PACKETS = {
    "plain": xmp("<rdf:Description rdf:about='' xmlns:dc='http://purl.org/dc/elements/1.1/' dc:format='image/jpeg'/>"),
    "source type": xmp(f"<rdf:Description rdf:about='' xmlns:e='{IPTC}' e:DigitalSourceType='http://cv.iptc.org/newscodes/negativeFilm'/>"),
    "source type alone": xmp(
        f"<rdf:Description rdf:about='' xmlns:e='{IPTC}'><e:DigitalSourceType>u</e:DigitalSourceType></rdf:Description>"
    ),
    "empty": xmp("").replace(b"></rdf:RDF>", b"/>"),
    "utf-16": xmp("<rdf:Description rdf:about='é'/>", encoding="utf-16"),
    "unreadable": b"<x:xmpmeta>no end",
    "zeros": xmp("<rdf:Description rdf:about=''/>") + b"\0\0\0",
    "large": xmp(f"<rdf:Description rdf:about=''>{'x' * 63_000}</rdf:Description>").replace(b" " * 300, b" " * 1_990),
}


@pytest.mark.parametrize("packet", PACKETS.values(), ids=PACKETS)
def test_a_restored_jpeg_has_the_metadata_of_its_original_byte_for_byte(packet: bytes) -> None:
    exif = Image.Exif()
    exif[0x010F] = "a scanner"
    data = encoded(grey_scene(50, 70), "JPEG", exif=exif.tobytes(), xmp=packet, dpi=(300, 300), comment=b"of 1907")
    assert read_note(colored(data)) is not None
    assert segments(restored(data)) == segments(data)
    again = restore_jpeg(colored(colored(data)), "x")  # what is coloured twice holds its first original
    assert segments(again) == segments(data)
    assert np.array_equal(np.array(Image.open(BytesIO(again))), np.array(Image.open(BytesIO(data))))


def test_a_grey_profile_comes_back_and_one_of_rgb_goes() -> None:
    profile = grey_profile()
    data = encoded(grey_scene(50, 70), "JPEG", icc_profile=profile)
    assert Image.open(BytesIO(colored(data))).info["icc_profile"][16:20] == b"RGB "
    assert segments(restored(data)) == segments(data)
    rgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert "icc_profile" not in Image.open(BytesIO(restored(encoded(rgb_scene(50, 70), "JPEG", icc_profile=rgb)))).info


@pytest.mark.parametrize("transform", [0, 1, 2])
@pytest.mark.parametrize("packet", [None, PACKETS["plain"]], ids=["no XMP", "XMP"])
def test_what_an_adobe_segment_says_of_grey_comes_back(packet: bytes | None, transform: int) -> None:
    stream = read_stream(encoded(grey_scene(50, 70), "JPEG", **({"xmp": packet} if packet else {})), "x")
    adobe = (0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))
    data = replace(stream, metadata=(*stream.metadata, adobe)).encoded()
    assert read_stream(colored(data), "x").adobe_transform == 1, "the colours are YCbCr"
    assert segments(restored(data)) == segments(data)
    assert segments(restore_jpeg(colored(colored(data)), "x")) == segments(data)


def test_what_another_program_has_added_since_stays() -> None:
    data = encoded(grey_scene(50, 70), "JPEG", xmp=PACKETS["source type"])
    result = colored(data)
    before = read_stream(result, "x")
    title = b"<rdf:Description rdf:about='' xmlns:dc='http://purl.org/dc/elements/1.1/' dc:source='box 7'/></rdf:RDF>"
    metadata = tuple((kind, content.replace(b"</rdf:RDF>", title)) for kind, content in before.metadata)
    (packet,) = [one for _, one in segments(restore_jpeg(replace(before, metadata=metadata).encoded(), "x")) if b"box 7" in one]
    assert b"negativeFilm" in packet
    assert b"colorize" not in packet


@pytest.mark.needs_data
def test_real_scans_come_back_with_their_metadata() -> None:
    scans = [path.read_bytes() for path in sorted((DATA / "archive_bw").glob("*.jp*g"))]
    grey = [data for data in scans if len(read_stream(data, "x").components) == 1]
    assert len(grey) > 5
    for data in grey:
        profile = read_stream(data, "x").icc_profile
        wanted = (
            segments(data) if profile is None or profile[16:20] == b"GRAY" else tuple(one for one in segments(data) if not is_icc(*one))
        )
        assert segments(restored(data)) == wanted
