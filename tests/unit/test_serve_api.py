"""The service's routes without Ray: what they answer to pictures of every format, to wishes, and to everything that a client gets wrong."""

import asyncio
import inspect
import io
import json
import threading
import zipfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import httpx2
import imagecodecs
import numpy as np
import pytest
import tifffile

from colorize.errors import ModelError
from colorize.imaging.formats import open_scan
from colorize.imaging.picture import read_picture
from colorize.imaging.scan import Scan
from colorize.imaging.verify import verify
from colorize.model.coloring import colorize_scan
from colorize.model.colorizer import Colorizer
from colorize.model.settings import DecodeSettings
from colorize.serve import batch as batch_module
from colorize.serve import codec, gate, status
from colorize.serve import desk as desk_module
from colorize.serve import work as work_module
from colorize.serve.archives import order_of, runs_of
from colorize.serve.batch import TOGETHER
from colorize.serve.catalog import Entry
from colorize.serve.codec import MEDIA_TYPES, Question
from colorize.serve.desk import Desk, UnavailableError, desk_of
from colorize.serve.page import site
from tests.models import constant_model, small_model
from tests.pictures import encoded, grey_scene, jpeg_claiming, png_chunk, png_header, rgb_scene
from tests.serving import LocalNetwork, trickle, with_service

MODEL = small_model(seed=3, working_size=32)
JPEG, PNG = encoded(grey_scene(), "JPEG"), encoded(grey_scene(), "PNG")


def tiff(pages: int = 1, dtype: str = "uint8", **options: Any) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for number in range(pages):
            page = grey_scene(40 + number, 50).astype(dtype)
            writer.write(page * 257 if dtype == "uint16" else page, photometric="minisblack", metadata=None, **options)
    return buffer.getvalue()


def post(path: str, content: Any = None, *, headers: dict[str, str] | None = None, files: Any = None, **settings: Any) -> httpx2.Response:
    async def work(client: httpx2.AsyncClient, _: Desk) -> httpx2.Response:
        return await client.post(path, content=content, headers=headers, files=files)

    return with_service(LocalNetwork(MODEL), MODEL, work, **settings)


def error_of(response: httpx2.Response) -> str:
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert list(answer) == ["error"]
    assert "\n" not in answer["error"]
    return str(answer["error"])


def entries(response: httpx2.Response) -> dict[str, bytes]:
    assert response.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


FORMATS = {
    "JPEG": (JPEG, "image/jpeg"),
    "PNG": (PNG, "image/png"),
    "16-bit PNG": (imagecodecs.png_encode(grey_scene().astype(np.uint16) * 257), "image/png"),
    "TIFF": (tiff(), "image/tiff"),
    "16-bit TIFF": (tiff(dtype="uint16", compression="zlib"), "image/tiff"),
    "TIFF of three pages": (tiff(3), "image/tiff"),
    "WebP": (encoded(rgb_scene(), "WEBP", lossless=True), "image/webp"),
    "JPEG 2000": (imagecodecs.jpeg2k_encode(grey_scene(), level=0, codecformat="jp2"), "image/jp2"),
    "BMP": (encoded(grey_scene(), "BMP"), "image/bmp"),
    "PGM": (encoded(grey_scene(), "PPM"), "image/x-portable-anymap"),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("as_form", [False, True], ids=["raw", "form"])
def test_a_picture_comes_back_in_its_own_format_as_without_a_service(kind: str, as_form: bool) -> None:
    sent, media_type = FORMATS[kind]
    reply = post("/v1/colorize?vividness=0.7", **({"files": {"file": ("a.bin", sent)}} if as_form else {"content": sent}))
    assert (reply.status_code, reply.headers["content-type"]) == (200, media_type)
    assert verify(open_scan(sent), open_scan(reply.content)).is_faithful
    expected = open_scan(colorize_scan(open_scan(sent), Colorizer(MODEL), DecodeSettings(vividness=0.7)))
    for number in range(len(expected.pages)):
        page, other = (
            np.concatenate([rgb_hwc for rgb_hwc, _ in scan.bands(number)]).astype(int) for scan in (open_scan(reply.content), expected)
        )
        most = 255 if page.max() < 256 else 65535
        assert np.abs(page - other).mean() <= 0.003 * most
        assert np.abs(page - other).max() <= 0.05 * most, "but for the rounding of lightness to 16 bits, and of bfloat16"
    assert reply.headers["x-colorize-model"] == "small"
    assert len(reply.headers["x-colorize-model-sha256"]) == 64
    assert 0 < float(reply.headers["x-colorize-mean-confidence"]) < 1
    assert [part.split(";dur=")[0] for part in reply.headers["server-timing"].split(", ")] == ["decode", "predict", "encode"]


def test_candidates_and_the_confidence_map_come_as_a_zip() -> None:
    found = entries(post("/v1/colorize?candidates=3&confidence=true", files={"file": ("../été.JPG", JPEG)}))
    assert list(found) == ["été.JPG", "été-2.JPG", "été-3.JPG", "été-confidence.png"]
    assert len(set(found.values())) == 4
    alone = post("/v1/colorize?candidates=3&candidate=2", JPEG)
    assert alone.content == found["été-2.JPG"]
    only = post("/v1/colorize?confidence=only", JPEG)
    assert (only.headers["content-type"], only.content) == ("image/png", found["été-confidence.png"])
    assert list(entries(post("/v1/colorize?confidence=true&format=webp", PNG))) == ["picture.webp", "picture-confidence.png"]


@pytest.mark.parametrize(("wanted", "kind"), [("jpeg", "JPEG"), ("png", "PNG"), ("tiff", "TIFF"), ("webp", "WEBP")])
def test_the_answer_comes_in_the_format_that_is_asked_for(wanted: str, kind: str) -> None:
    reply = post(f"/v1/colorize?format={wanted}", PNG)
    assert reply.headers["content-type"] == f"image/{wanted}"
    assert open_scan(reply.content).format == kind


def test_hints_reach_the_network_from_the_query_and_from_the_form() -> None:
    hints = json.dumps([{"x": 63, "y": 0, "color": "#ff0000"}])
    network = LocalNetwork(MODEL)

    async def work(client: httpx2.AsyncClient, _: Desk) -> list[httpx2.Response]:
        return [
            await client.post("/v1/colorize", content=PNG, params={"hints": hints}),
            await client.post("/v1/colorize", files={"file": ("a.png", PNG), "hints": (None, hints)}),
            await client.post("/v1/colorize", content=PNG),
        ]

    in_query, in_form, without = with_service(network, MODEL, work)
    assert in_query.content == in_form.content != without.content
    first, second, third = network.asked
    assert first.hints == second.hints != third.hints == ()
    assert (round(first.hints[0].across, 3), round(first.hints[0].down, 3)) == (0.992, 0.010)


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (b"", 422, "empty"),
        (b"hello", 415, "text, not a picture"),
        (bytes(range(256)), 415, "no picture of a known format"),
        (encoded(rgb_scene(), "GIF"), 415, "GIF"),
        (JPEG[:3], 422, "damaged JPEG"),
        (JPEG[: len(JPEG) // 2], 422, "truncated or damaged JPEG"),
        (PNG[:20], 422, "damaged PNG"),
        (PNG[:-20], 422, "truncated"),
        (tiff()[:-100], 422, "damaged"),
        (b"II*\0", 422, "TIFF"),
        (jpeg_claiming(20_000, 10_001), 413, "20000×10001 pixels"),
        (png_header(60_000, 60_000) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b""), 413, "60000×60000 pixels"),
    ],
    ids=str.split("nothing text bytes GIF JPEG-start half-JPEG PNG-start cut-PNG cut-TIFF TIFF-start huge-JPEG huge-PNG"),
)
def test_what_is_no_picture_is_refused_with_the_reason(content: bytes, status: int, reason: str) -> None:
    reply = post("/v1/colorize", content)
    assert reply.status_code == status
    assert reason in error_of(reply)


@pytest.mark.parametrize(
    ("query", "status", "reason"),
    [
        ("vividness=1.01", 422, "vividness '1.01'"),
        ("vividness=nan", 422, "vividness 'nan'"),
        ("vividness=much", 422, "vividness 'much'"),
        ("vividness=", 422, "vividness ''"),
        ("vividnes=1", 422, "vividnes '1'"),
        ("vividness=1&vividness=1", 422, "vividness: is in the query more than once"),
        ("vividness=1&x=1&x=2", 422, "x: is in the query more than once"),
        ("temperature=0", 422, "temperature '0'"),
        ("temperature=1e-45", 422, "temperature '1e-45'"),
        ("candidates=13", 422, "candidates '13'"),
        ("candidates=1e999", 422, "candidates"),
        ("candidate=2", 422, "candidate 2: must be at most candidates"),
        ("format=gif", 422, "format 'gif'"),
        ("confidence=maybe", 422, "confidence 'maybe'"),
        ("model=none", 404, "model none: no such model; there are small, cifar10, photo"),
        ("model=../weights/photo", 404, "no such model"),
        ("model=/etc/passwd", 404, "no such model"),
        ("model=%00", 404, "no such model"),
        ("hints=red", 422, "hints: is not JSON"),
        ("hints=%5B%7B%22x%22:99,%22y%22:0,%22color%22:%22%23ff0000%22%7D%5D", 422, "outside the picture"),
    ],
)
def test_a_wrong_parameter_is_refused_with_its_name_and_value(query: str, status: int, reason: str) -> None:
    reply = post(f"/v1/colorize?{query}", PNG)
    assert reply.status_code == status
    assert reason in error_of(reply)
    if status == 422 and not query.startswith("hints="):
        assert reason in error_of(post(f"/v1/colorize/batch?{query}", zipped(("a.png", PNG)), headers=ZIP))


FORM = "multipart/form-data; boundary=x"


@pytest.mark.parametrize(
    ("kind", "content", "status", "reason"),
    [
        ("multipart/form-data", b"", 400, "no boundary"),
        (f"multipart/form-data; boundary={'x' * 1000}", b"", 400, "boundary is too long"),
        (FORM, b"", 400, "ends before its last boundary"),
        (FORM, b"hello", 400, "damaged"),
        (FORM, b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nab', 400, "ends before its last boundary"),
        (FORM, b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n\r\n--x--\r\n', 422, "empty"),
        (FORM, b'--x\r\nContent-Disposition: form-data; name="picture"\r\n\r\nab\r\n--x--\r\n', 400, "a part 'picture'"),
        (FORM, b"--x\r\n\r\nab\r\n--x--\r\n", 400, "a part ''"),
        (FORM, b'--x\r\nContent-Disposition: form-data; name="hints"\r\n\r\n[]\r\n--x--\r\n', 400, "one part called file"),
        (FORM, b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\na\r\n' * 3 + b"--x--\r\n", 413, "more than 2 parts"),
        (FORM, b"--x\r\n" + b"A: b\r\n" * 100, 400, "damaged"),
        (FORM, b"--x\r\nA: " + b"b" * 100_000, 400, "damaged"),
    ],
)
def test_a_damaged_form_is_refused(kind: str, content: bytes, status: int, reason: str) -> None:
    reply = post("/v1/colorize", content, headers={"Content-Type": kind})
    assert reply.status_code == status, reply.text
    assert reason in error_of(reply)


def test_limits_have_their_own_answers() -> None:
    assert post("/v1/colorize", PNG, max_body_bytes=len(PNG) - 1).status_code == 413
    assert post("/v1/colorize", PNG, max_pixels=48 * 64 - 1).status_code == 413
    assert "3 pages" in error_of(post("/v1/colorize", tiff(3), max_pages=2))
    slow = post("/v1/colorize", trickle(PNG[:50]), upload_seconds=0.05)
    assert (slow.status_code, slow.headers["connection"]) == (408, "close")
    held = post("/v1/colorize", PNG, max_held_bytes=len(PNG) - 1)
    assert (held.status_code, held.headers["retry-after"]) == (503, "1")


@pytest.mark.slow
def test_a_large_picture_in_a_small_file_keeps_nobody_waiting() -> None:
    sent = encoded(np.zeros((10_000, 10_000), np.uint8), "PNG")
    assert len(sent) < 1 << 20

    async def work(client: httpx2.AsyncClient, _: Desk) -> tuple[httpx2.Response, int]:
        large = asyncio.create_task(client.post("/v1/colorize", content=sent))
        answered = 0
        while not large.done():
            assert (await client.get("/healthz")).status_code == 200
            answered += 1
            await asyncio.sleep(0.1)
        return await large, answered

    reply, answered = with_service(LocalNetwork(MODEL), MODEL, work)
    assert (reply.status_code, open_scan(reply.content).pages[0].width) == (200, 10_000)
    assert answered > 5


@pytest.mark.parametrize("most", [2, 1], ids=["room for both", "room for one"])
def test_large_pictures_leave_a_thread_and_pixels_to_the_small_ones(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    large, pixels = encoded(grey_scene(100, 100), "PNG"), 100 * 100
    ask, is_under_way, may_go_on = work_module.questions, threading.Event(), threading.Event()

    def slow(scan: Scan, *arguments: Any) -> list[Question]:
        if scan.pages[0].width == 100:
            is_under_way.set()
            assert may_go_on.wait(60)
        return ask(scan, *arguments)

    monkeypatch.setattr(desk_module, "LARGE_PIXELS", pixels - 1)
    monkeypatch.setattr(work_module, "questions", slow)

    async def work(client: httpx2.AsyncClient, _: Desk) -> list[int]:
        scans = [asyncio.create_task(client.post("/v1/colorize", content=large)) for _ in range(2)]
        try:
            await asyncio.to_thread(is_under_way.wait, 60)
            small = await asyncio.wait_for(client.post("/v1/colorize", content=PNG), 30)
        finally:
            may_go_on.set()
        return [small.status_code, *(reply.status_code for reply in await asyncio.gather(*scans))]

    assert with_service(LocalNetwork(MODEL), MODEL, work, max_pixels=most * pixels) == [200] * 3


def test_a_sender_that_has_gone_is_noticed_between_two_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    painted, is_under_way, may_go_on = [], threading.Event(), threading.Event()
    paint = codec.paint

    def slow(*arguments: Any, candidate: int, **options: Any) -> None:
        painted.append(candidate)
        is_under_way.set()
        assert may_go_on.wait(60)
        paint(*arguments, candidate=candidate, **options)

    monkeypatch.setattr(codec, "paint", slow)

    async def work(client: httpx2.AsyncClient, _: Desk) -> None:
        sender = asyncio.create_task(client.post("/v1/colorize?candidates=3", content=PNG))
        await asyncio.to_thread(is_under_way.wait, 60)
        sender.cancel()
        await asyncio.sleep(0)
        may_go_on.set()
        await asyncio.gather(sender, return_exceptions=True)

    with_service(LocalNetwork(MODEL), MODEL, work)
    assert painted == [0]


def test_a_full_service_refuses_at_once_and_recovers() -> None:
    async def work(client: httpx2.AsyncClient, _: Desk) -> list[int]:
        uploads = [asyncio.create_task(client.post("/v1/colorize", content=trickle(PNG[:50]))) for _ in range(2)]
        await asyncio.sleep(0.05)
        statuses = [(await client.post("/v1/colorize", content=PNG)).status_code, (await client.get("/healthz")).status_code]
        for upload in uploads:
            upload.cancel()
        await asyncio.gather(*uploads, return_exceptions=True)
        return [*statuses, (await client.post("/v1/colorize", content=PNG)).status_code]

    assert with_service(LocalNetwork(MODEL), MODEL, work, max_requests=2) == [503, 200, 200]


def test_a_question_whose_replica_is_lost_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(client: httpx2.AsyncClient, _: Desk) -> httpx2.Response:
        return await client.post("/v1/colorize", content=PNG)

    lost = [UnavailableError() for _ in range(2)]
    assert with_service(LocalNetwork(MODEL, *lost), MODEL, work).status_code == 200
    monkeypatch.setattr(desk_module, "ATTEMPTS", 2)
    reply = with_service(LocalNetwork(MODEL, *lost), MODEL, work)
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize(("failure", "status"), [(UnavailableError(), 503), (ModelError("model x: is gone"), 404)])
def test_pages_that_the_network_does_not_answer_are_refused_as_one_is(
    failure: Exception, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(client: httpx2.AsyncClient, _: Desk) -> httpx2.Response:
        return await client.post("/v1/colorize", content=tiff(3))

    monkeypatch.setattr(desk_module, "ATTEMPTS", 1)
    for failures in ([failure], [failure] * 3):
        reply = with_service(LocalNetwork(MODEL, *failures), MODEL, work)
        assert reply.status_code == status, reply.text


def test_a_fault_of_this_program_is_500_and_tells_nothing() -> None:
    async def work(client: httpx2.AsyncClient, _: Desk) -> httpx2.Response:
        return await client.post("/v1/colorize", content=PNG)

    reply = with_service(LocalNetwork(MODEL, RuntimeError("/secret")), MODEL, work)
    assert (reply.status_code, "secret" in reply.text) == (500, False)


def test_the_model_that_answered_is_named_in_the_answer_and_in_the_file() -> None:
    reply = post("/v1/colorize?model=cifar10", PNG)
    assert reply.headers["x-colorize-model"] == "cifar10"
    assert b"cifar10" in (open_scan(reply.content).metadata.xmp or b"")


# Batches


def zipped(*files: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return buffer.getvalue()


ZIP = {"Content-Type": "application/zip"}


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "form"])
def test_a_batch_comes_back_in_order_with_what_failed_in_its_manifest(as_zip: bool) -> None:
    files = [("b.png", PNG), ("../../a.jpg", JPEG), ("bad.jpg", JPEG[:100]), ("B.png", PNG), ("manifest.json", b"{}")]
    sent: dict[str, Any] = {"content": zipped(*files), "headers": ZIP} if as_zip else {"files": [("file", file) for file in files]}
    found = entries(post("/v1/colorize/batch", **sent))
    assert list(found) == ["b.png", "a.jpg", "B (2).png", "manifest.json"]
    manifest = json.loads(found["manifest.json"])
    assert [row["file"] for row in manifest] == [name for name, _ in files]
    assert [row["status"] for row in manifest] == ["coloured", "coloured", "failed", "coloured", "failed"]
    assert [row["name"] for row in manifest] == ["b.png", "a.jpg", None, "B (2).png", None]
    assert "damaged JPEG" in manifest[2]["reason"]
    assert all(set(row) == {"file", "status", "reason", "name", "model", "mean_confidence"} for row in manifest)
    assert read_picture(found["a.jpg"]).pixels.ndim == 3


def test_a_part_without_a_name_is_called_as_a_picture_alone_is() -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + PNG + b"\r\n--x--\r\n"
    assert list(entries(post("/v1/colorize/batch", body, headers={"Content-Type": FORM}))) == ["picture.png", "manifest.json"]
    assert list(entries(post("/v1/colorize/batch", zipped(("..", JPEG)), headers=ZIP))) == ["picture.jpg", "manifest.json"]


def test_a_batch_is_worked_on_a_few_pictures_at_a_time() -> None:
    network = LocalNetwork(MODEL)

    async def work(client: httpx2.AsyncClient, _: Desk) -> httpx2.Response:
        files = [(f"{number}.png", encoded(grey_scene(20 + number, 30), "PNG")) for number in range(3 * TOGETHER)]
        return await client.post("/v1/colorize/batch?candidates=2&confidence=true", content=zipped(*files), headers=ZIP)

    found = entries(with_service(network, MODEL, work))
    assert list(found)[:3] == ["0.png", "0-2.png", "0-confidence.png"]
    assert len(found) == 9 * TOGETHER + 1
    assert 1 < network.most_together <= TOGETHER


def test_the_pictures_of_all_batches_wait_for_their_share_of_the_memory() -> None:
    network = LocalNetwork(MODEL)
    files = [(f"{number}.png", PNG) for number in range(TOGETHER)]

    async def work(client: httpx2.AsyncClient, desk: Desk) -> list[httpx2.Response]:
        with desk.held.hold() as hold:  # those that come alone have their own
            hold(2 * len(PNG))
            as_zip = client.post("/v1/colorize/batch", content=zipped(*files), headers=ZIP)
            as_form = client.post("/v1/colorize/batch", files=[("file", file) for file in files])
            return await asyncio.gather(as_zip, as_form)

    for reply in with_service(network, MODEL, work, max_held_bytes=2 * len(PNG)):
        assert len(entries(reply)) == TOGETHER + 1
    assert network.most_together == 2

    larger = entries(post("/v1/colorize/batch", zipped(*files), headers=ZIP, max_held_bytes=len(PNG) - 1))
    assert "too large" in json.loads(larger["manifest.json"])[0]["reason"], "it would wait for ever"


def test_the_uploads_of_all_batches_have_their_share_of_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = zipped(("a.png", PNG))

    async def work(client: httpx2.AsyncClient, _: Desk) -> list[httpx2.Response]:
        upload = asyncio.create_task(client.post("/v1/colorize/batch", content=trickle(batch[:-1]), headers=ZIP))
        await asyncio.sleep(0.05)
        replies = [await client.post("/v1/colorize/batch", content=batch, headers=ZIP)]
        upload.cancel()
        await asyncio.gather(upload, return_exceptions=True)
        return [*replies, *[await client.post("/v1/colorize/batch", content=batch, headers=ZIP) for _ in range(2)]]

    monkeypatch.setattr(desk_module, "BATCHES_ON_DISK", 1)
    full, *others = with_service(LocalNetwork(MODEL), MODEL, work, max_batch_bytes=len(batch))
    assert (full.status_code, full.headers["retry-after"]) == (503, "1")
    assert [reply.status_code for reply in others] == [200, 200]


@pytest.mark.parametrize("as_zip", [True, False])
def test_others_are_answered_while_the_disk_takes_its_time_with_an_upload(as_zip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, answered = threading.Event(), threading.Event()
    in_time: list[bool] = []

    class SlowFile(io.BytesIO):
        def write(self, data: Any) -> int:
            begun.set()
            in_time.append(answered.wait(10))
            return super().write(data)

    monkeypatch.setattr("tempfile.TemporaryFile", lambda prefix: SlowFile())

    async def work(client: httpx2.AsyncClient, _: Desk) -> httpx2.Response:
        sent: dict[str, Any] = {"content": zipped(("a.png", PNG)), "headers": ZIP} if as_zip else {"files": [("file", ("a.png", PNG))]}
        upload = asyncio.create_task(client.post("/v1/colorize/batch", **sent))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        assert (await client.get("/healthz")).status_code == 200
        answered.set()
        return await upload

    assert list(entries(with_service(LocalNetwork(MODEL), MODEL, work))) == ["a.png", "manifest.json"]
    assert all(in_time)


def test_an_upload_of_many_chunks_is_written_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_module, "WRITTEN_BYTES", 1000)
    files = zipped(*((f"{number}.png", PNG) for number in range(5)))

    async def work(client: httpx2.AsyncClient, _: Desk) -> httpx2.Response:
        pieces = (files[start : start + 300] for start in range(0, len(files), 300))
        return await client.post("/v1/colorize/batch", content=_sent(pieces), headers=ZIP)

    assert len(entries(with_service(LocalNetwork(MODEL), MODEL, work))) == 6


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_full_disk_is_a_refusal_and_takes_the_next_batch_when_it_has_room(as_zip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: dict[str, Any] = {"content": zipped(("a.png", PNG)), "headers": ZIP} if as_zip else {"files": [("file", ("a.png", PNG))]}

    async def work(client: httpx2.AsyncClient, desk: Desk) -> tuple[httpx2.Response, httpx2.Response]:
        with monkeypatch.context() as patched:
            patched.setattr("tempfile.TemporaryFile", lambda prefix: Path("/dev/full").open("w+b"))  # noqa: SIM115 - the service closes it
            refused = await client.post("/v1/colorize/batch", **sent)
        return refused, await client.post("/v1/colorize/batch", **sent)

    refused, taken = with_service(LocalNetwork(MODEL), MODEL, work)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert error_of(refused) == "the service's disk does not take the batch (no space left on device); try again"
    assert list(entries(taken)) == ["a.png", "manifest.json"]


async def _sent(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def test_a_fault_costs_one_picture_of_a_batch() -> None:
    async def work(client: httpx2.AsyncClient, _: Desk) -> httpx2.Response:
        return await client.post("/v1/colorize/batch", content=zipped(("a.png", PNG), ("b.png", PNG)), headers=ZIP)

    manifest = json.loads(entries(with_service(LocalNetwork(MODEL, RuntimeError("/secret")), MODEL, work))["manifest.json"])
    assert sorted(row["status"] for row in manifest) == ["coloured", "failed"]
    assert "secret" not in str(manifest)


def test_a_client_that_goes_away_leaves_nothing_behind() -> None:
    async def work(client: httpx2.AsyncClient, desk: Desk) -> list[int]:
        files = zipped(*((f"{number}.png", PNG) for number in range(50)))
        for seconds in (0.0, 0.01, 0.05, 0.1):
            task = asyncio.create_task(client.post("/v1/colorize/batch", content=files, headers=ZIP))
            await asyncio.sleep(seconds)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return [(await client.post("/v1/colorize", content=PNG)).status_code]

    assert with_service(LocalNetwork(MODEL), MODEL, work, max_requests=1) == [200]


def bomb(name: str = "zeros.bmp", size: int = 1 << 24) -> bytes:
    return zipped((name, bytes(size)))


def lying(data: bytes) -> bytes:
    """A zip whose directory says that its first file is small."""
    at = data.rindex(b"PK\1\2")
    return data[: at + 24] + (1000).to_bytes(4, "little") + data[at + 28 :]


@pytest.mark.parametrize(
    ("content", "settings", "status", "reason"),
    [
        (b"", {}, 400, "no zip"),
        (b"hello", {}, 400, "no zip"),
        (zipped(("a.png", PNG))[:-30], {}, 400, "the zip"),
        (zipped(), {}, 400, "no files"),
        (bomb(), {}, 413, "inflates more than 200-fold"),
        (bomb(), {"max_batch_bytes": 1 << 21}, 413, "inflates to more than"),
        (zipped(*((f"{number}.png", PNG) for number in range(4))), {"max_batch_files": 3}, 413, "more than 3 files"),
        (zipped(*((f"{number}" * 400, b"") for number in range(1, 10))), {"max_batch_files": 1}, 413, "more than 1 files"),
        (zipped(("a.png", bytes(range(256)) * 300), method=zipfile.ZIP_STORED), {"max_batch_bytes": 1 << 16}, 413, "too large"),
    ],
)
def test_a_zip_that_is_none_or_means_harm_is_refused(content: bytes, settings: dict[str, Any], status: int, reason: str) -> None:
    reply = post("/v1/colorize/batch", content, headers=ZIP, **settings)
    assert reply.status_code == status, reply.text
    assert reason in error_of(reply)


def test_a_file_of_a_zip_that_lies_about_its_size_fails_alone() -> None:
    found = entries(post("/v1/colorize/batch", lying(bomb(size=1 << 20)), headers=ZIP))
    assert json.loads(found["manifest.json"])[0]["status"] == "failed"
    too_large = entries(
        post("/v1/colorize/batch", zipped(("a.png", PNG), ("b.png", PNG + bytes(9999))), headers=ZIP, max_body_bytes=len(PNG))
    )
    assert [row["status"] for row in json.loads(too_large["manifest.json"])] == ["coloured", "failed"]


def test_a_batch_of_something_else_is_refused() -> None:
    assert post("/v1/colorize/batch", PNG, headers={"Content-Type": "image/png"}).status_code == 415
    assert post("/v1/colorize/batch?model=none", zipped(("a.png", PNG)), headers=ZIP).status_code == 404
    assert post("/v1/colorize/batch?hints=[]", zipped(("a.png", PNG)), headers=ZIP).status_code == 422
    assert post("/v1/colorize/batch", files=[("file", ("a", PNG))] * 4, max_batch_files=3).status_code == 413


# The gate


def get(path: str, headers: dict[str, str] | None = None, **settings: Any) -> httpx2.Response:
    async def work(client: httpx2.AsyncClient, _: Desk) -> httpx2.Response:
        return await client.get(path, headers=headers)

    return with_service(LocalNetwork(MODEL), MODEL, work, **settings)


KEY = "a-key-of-some-length"
DIGEST = "sha256:5c3cb8b2b3ed0d9aa6d5c3a3b1d9ed7e7dcb0c4d3b2a190807f6e5d4c3b2a190"


@pytest.fixture
def digest() -> str:
    from colorize.serve.keys import digest_of

    return digest_of(KEY)


def test_with_keys_one_must_be_sent(digest: str) -> None:
    keys: dict[str, Any] = {"api_keys": (DIGEST, digest)}
    assert get("/v1/models", {"Authorization": f"Bearer {KEY}"}, **keys).status_code == 200
    assert (
        get("/v1/models", {"Authorization": f"bearer {KEY}"}, peer="10.1.2.3", base_url="http://10.0.0.1:8000", **keys).status_code == 200
    )
    for headers in ({}, {"Authorization": KEY}, {"Authorization": "Bearer"}, {"Authorization": f"Bearer {KEY}x"}, {"X-Api-Key": KEY}):
        for path in ("/v1/models", "/metrics", "/v1/nothing"):
            reply = get(path, headers, **keys)
            assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
            assert KEY not in error_of(reply)
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert get(path, **keys).status_code == 200


@pytest.mark.parametrize("prefix", ["/colour", "/v1"])
def test_below_a_route_prefix_too_a_key_must_be_sent(digest: str, prefix: str) -> None:
    for path in ("/v1/models", "/metrics", "/v1"):
        assert get(f"{prefix}{path}", api_keys=(digest,), root_path=prefix).status_code == 401
    key = {"Authorization": f"Bearer {KEY}"}
    assert get(f"{prefix}/v1/models", key, api_keys=(digest,), root_path=prefix).status_code == 200
    assert get(f"{prefix}/healthz", api_keys=(digest,), root_path=prefix).status_code == 200


def test_a_key_has_its_rate(digest: str) -> None:
    async def work(client: httpx2.AsyncClient, _: Desk) -> list[httpx2.Response]:
        headers = {"Authorization": f"Bearer {KEY}"}
        batch = zipped(*((f"{number}.png", PNG) for number in range(5)))
        replies = [await client.get("/v1/models", headers=headers)]
        replies.append(await client.post("/v1/colorize/batch", content=batch, headers=headers | ZIP))
        replies.append(await client.get("/v1/models", headers=headers))
        return replies

    statuses = with_service(LocalNetwork(MODEL), MODEL, work, api_keys=(digest,), burst=3, requests_per_second=0.1)
    assert [reply.status_code for reply in statuses] == [200, 200, 429]
    assert 20 <= int(statuses[2].headers["retry-after"]) <= 41, "the batch of five is paid back first"


PROXIED = ("X-Forwarded-For", "X-Forwarded-Proto", "x-forwarded-port", "X-Forwarded-Whatever", "X-Real-IP", "Via", "Forwarded")


@pytest.mark.parametrize(
    ("peer", "base_url", "headers"),
    [
        ("10.1.2.3", "http://127.0.0.1:8000", {}),
        ("127.0.0.1", "http://10.0.0.1:8000", {}),
        ("127.0.0.1", "http://evil.example:8000", {}),
        ("127.0.0.1", "http://127.0.0.1.evil.example:8000", {}),
        ("127.0.0.1", "http://127.1:8000", {}),
        (
            "10.1.2.3",
            "http://10.0.0.1:8000",
            {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "127.0.0.1", "Forwarded": "for=127.0.0.1"},
        ),
        *(("127.0.0.1", "http://127.0.0.1:8000", {name: "127.0.0.1"}) for name in PROXIED),
        ("127.0.0.1", "http://127.0.0.1:8000", {"Origin": "http://evil.example"}),
        ("127.0.0.1", "http://127.0.0.1:8000", {"Origin": "null"}),
        ("127.0.0.1", "http://127.0.0.1:8000", {"Origin": "http://["}),
        ("127.0.0.1", "http://127.0.0.1:8000", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}),
    ],
)
def test_without_keys_only_this_machine_is_answered(peer: str, base_url: str, headers: dict[str, str]) -> None:
    reply = get("/v1/models", headers, peer=peer, base_url=base_url)
    assert reply.status_code == 403
    error_of(reply)


def test_the_services_own_page_may_use_it() -> None:
    for base in ("http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000", "http://127.0.0.2:8000", "http://127.0.0.2"):
        headers = {"Host": base.removeprefix("http://"), "Origin": base, "Sec-Fetch-Site": "same-origin"}
        assert get("/v1/models", headers).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/nothing", "/v1/colorize", "/openapi.json"])
def test_every_answer_has_the_security_headers(path: str) -> None:
    headers = get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"


def test_the_page_has_its_own_policy_and_the_headers_of_every_answer() -> None:
    for path in ("/", "/static/page.css", "/static/none"):
        headers = get(path).headers
        assert {name: headers[name] for name in gate.HEADERS} == gate.HEADERS | site.HEADERS


@pytest.mark.parametrize(
    ("path", "method", "status"), [("/v1/colourise", "POST", 404), ("/v1/colorize", "GET", 405), ("/healthz/", "GET", 404)]
)
def test_a_wrong_path_or_method_is_refused(path: str, method: str, status: int) -> None:
    async def work(client: httpx2.AsyncClient, _: Desk) -> httpx2.Response:
        return await client.request(method, path)

    reply = with_service(LocalNetwork(MODEL), MODEL, work)
    assert reply.status_code == status
    assert error_of(reply).startswith(f"{method} {path}:")


# What is said of the service


def test_all_who_ask_for_readiness_share_a_question_and_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "KEPT_SECONDS", 3600.0)
    network = LocalNetwork(MODEL)

    async def work(client: httpx2.AsyncClient, _: Desk) -> list[int]:
        gone = asyncio.create_task(client.get("/readyz"))
        others = [asyncio.create_task(client.get("/readyz")) for _ in range(20)]
        while not network.asked:
            await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        return [reply.status_code for reply in [*await asyncio.gather(*others), await client.get("/readyz")]]

    assert with_service(network, MODEL, work) == [200] * 21
    assert len(network.asked) == 1


def test_readiness_is_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "KEPT_SECONDS", 0.0)

    async def work(client: httpx2.AsyncClient, _: Desk) -> list[int]:
        return [(await client.get(path)).status_code for path in ("/healthz", "/readyz", "/readyz")]

    assert with_service(LocalNetwork(MODEL, UnavailableError()), MODEL, work) == [200, 503, 200]


def test_the_models_are_those_that_ship_and_those_of_the_folder(tmp_path: Any) -> None:
    constant_model(20, 20).save(tmp_path / "house.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no model")
    (tmp_path / "..hidden.safetensors").write_bytes(b"")
    answer = get("/v1/models", models_dir=str(tmp_path)).json()
    assert answer["default"] == "small"
    assert [model["name"] for model in answer["models"]] == ["small", "cifar10", "house", "photo"]
    assert [model["loaded"] for model in answer["models"]] == [True, False, False, False]
    assert all(set(model) == {"name", "sha256", "parameters", "working_size", "loaded"} for model in answer["models"])
    assert post("/v1/colorize?model=broken", PNG, models_dir=str(tmp_path)).status_code == 404


def test_the_loop_waits_for_no_disk_and_no_route_for_a_thread() -> None:
    async def work(client: httpx2.AsyncClient, desk: Desk) -> list[threading.Thread]:
        find, threads = desk.catalog.find, []

        def noted(name: str | None) -> Entry:
            threads.append(threading.current_thread())
            return find(name)

        desk.catalog.find = noted  # type: ignore[method-assign]
        for path, content, headers in (("", PNG, {}), ("/batch", zipped(("a.png", PNG)), ZIP)):
            assert (await client.post(f"/v1/colorize{path}?model=cifar10", content=content, headers=headers)).status_code == 200
        return threads

    threads = with_service(LocalNetwork(MODEL), MODEL, work)
    assert threads
    assert threading.main_thread() not in threads
    for dependency in (desk_of, runs_of, order_of):
        assert inspect.iscoroutinefunction(dependency), "FastAPI would call it in a thread"


def test_the_measurements_count_what_happened() -> None:
    async def work(client: httpx2.AsyncClient, desk: Desk) -> dict[str, float]:
        await client.post("/v1/colorize", content=PNG)
        await client.post("/v1/colorize", content=b"hello")
        await client.post("/v1/colorize", content=PNG[:-20])
        for query in ("vividness=2", "vividnes=1", "candidate=2", "vividness=1&vividness=0", "hints=red"):
            await client.post(f"/v1/colorize?{query}", content=PNG)
        await client.post("/v1/" + "x" * 50)
        samples = [sample for series in desk.meter.series() for sample in series.samples]
        return {f"{name} {' '.join(value for _, value in labels)}".strip(): value for name, labels, value in samples}

    found = with_service(LocalNetwork(MODEL), MODEL, work)
    assert found["colorize_requests_total /v1/colorize POST 200"] == 1
    assert found["colorize_requests_total /v1/colorize POST 415"] == 1
    assert found["colorize_requests_total other POST 404"] == 1
    assert found["colorize_pictures_total small"] == 1
    assert found["colorize_megapixels_total small"] == pytest.approx(48 * 64 / 1e6)
    assert found["colorize_failures_total format"] == found["colorize_failures_total damaged"] == 1
    assert found["colorize_failures_total parameter"] == 5
    assert found["colorize_request_seconds_count /v1/colorize"] == 8
    assert found["colorize_requests_in_flight"] == 0


def test_the_document_describes_every_route() -> None:
    document = get("/openapi.json").json()
    assert {"/v1/colorize", "/v1/colorize/batch", "/v1/models", "/healthz", "/readyz", "/metrics"} <= set(document["paths"])
    operation = document["paths"]["/v1/colorize"]["post"]
    names = {parameter["name"] for parameter in operation["parameters"]}
    assert names == {"model", "vividness", "temperature", "candidates", "candidate", "format", "confidence", "hints"}
    assert {"image/jpeg", "image/tiff", "multipart/form-data"} <= set(operation["requestBody"]["content"])
    assert {"image/jpeg", "image/tiff", "application/zip"} <= set(operation["responses"]["200"]["content"])
    assert {"400", "401", "403", "404", "408", "413", "415", "422", "429", "503"} <= set(operation["responses"])


def test_the_document_has_one_kind_of_error_and_every_kind_of_picture() -> None:
    """A generator makes a class of each inline schema: there were sixty of the same error once."""

    async def document(client: httpx2.AsyncClient, _: Desk) -> dict[str, Any]:
        found: dict[str, Any] = (await client.get("/openapi.json")).json()
        return found

    document_ = with_service(LocalNetwork(MODEL), MODEL, document)
    responses = [
        (status, response)
        for path in document_["paths"].values() for operation in path.values() for status, response in operation["responses"].items()
    ]  # fmt: skip
    refused = [response for status, response in responses if int(status) >= 400]
    assert len(refused) > 40
    assert {json.dumps(response["content"]) for response in refused} == {
        json.dumps({"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}})
    }
    answered = document_["paths"]["/v1/colorize"]["post"]["responses"]["200"]["content"]
    assert set(answered) == {*MEDIA_TYPES.values(), "application/zip"}
    manual = (Path(__file__).parents[2] / "docs/client.md").read_text()
    assert all(f"  {kind}: application/octet-stream\n" in manual for kind in answered)
