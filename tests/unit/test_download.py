"""The downloader against a real HTTP server on the loopback interface: whole, resumed, broken off, wrong, refused."""

import fcntl
import hashlib
import http.server
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from colorize.data import download as module
from colorize.data.download import cache_folder, cifar10_archive, download
from colorize.errors import DataError

CONTENT = bytes(range(256)) * 12_345
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT and breaks off after `cut` bytes of a response as often as `breaks` says."""

    ranges = True
    breaks = 0
    cut = 1_000_000
    content = CONTENT
    status = 0
    location = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/cifar-10-binary.tar.gz"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        served = self.server
        asked = self.headers.get("Range")
        served.asked.append(asked)
        if served.status:
            self.send_response(served.status)
            self.send_header("Location", served.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and served.ranges else 0
        if start >= len(served.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(served.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = served.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(served.content) - 1}/{len(served.content)}")
        self.end_headers()
        if served.breaks:
            served.breaks -= 1
            body = body[: served.cut]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def only(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_downloads_once(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "new" / "cache" / "a.tar.gz"
    assert download(server.url, target, md5=MD5) == target
    assert target.read_bytes() == CONTENT
    assert only(target.parent) == ["a.tar.gz"]
    assert download(server.url, target, md5=MD5) == target
    assert server.asked == [None]


@pytest.mark.parametrize("ranges", [True, False])
def test_takes_up_what_broke_off(server: Server, tmp_path: Path, ranges: bool) -> None:
    server.breaks, server.ranges = 2, ranges
    download(server.url, tmp_path / "a", md5=MD5)
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000000-", "bytes=2000000-" if ranges else "bytes=1000000-"]


def test_keeps_what_came_for_the_next_run(server: Server, tmp_path: Path) -> None:
    server.breaks, server.cut = 99, 100_000
    with pytest.raises(DataError, match=r"broke off: .*; 500,000 bytes are kept, the next run goes on from there"):
        download(server.url, tmp_path / "a", md5=MD5)
    assert only(tmp_path) == ["a.partial"]
    server.breaks = 0
    download(server.url, tmp_path / "a", md5=MD5)
    assert server.asked[-1] == "bytes=500000-"
    assert only(tmp_path) == ["a"]


def test_partial_that_is_whole_already(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.partial").write_bytes(CONTENT)
    download(server.url, tmp_path / "a", md5=MD5)
    assert only(tmp_path) == ["a"]


def test_partial_that_is_too_long(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.partial").write_bytes(CONTENT + b"more")
    download(server.url, tmp_path / "a", md5=MD5)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_wrong_bytes_are_thrown_away(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(DataError, match=rf"the download has MD5 [0-9a-f]{{32}}, not {MD5}: it was thrown away"):
        download(server.url, tmp_path / "a", md5=MD5)
    assert only(tmp_path) == []


def test_damaged_cache_is_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT[:-1])
    download(server.url, tmp_path / "a", md5=MD5)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_refused(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(DataError, match=r"cannot be downloaded: 404 Not Found"):
        download(server.url, tmp_path / "a", md5=MD5)


def test_never_from_https_to_http() -> None:
    request = urllib.request.Request("https://example.org/a")
    with pytest.raises(urllib.error.URLError, match="not https"):
        module._SameScheme().redirect_request(request, None, 302, "Found", None, "http://example.org/a")  # type: ignore[arg-type]


def test_redirect_is_followed(server: Server, tmp_path: Path) -> None:
    with Server() as other:
        thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.status, server.location = 302, other.url
        download(server.url, tmp_path / "a", md5=MD5)
        other.shutdown()
        thread.join()
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_offline_says_how_to_get_it_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as gone:
        url = gone.url  # nobody listens there once the server is closed
    monkeypatch.setattr(module, "CIFAR10_URL", url)
    with pytest.raises(DataError, match=r"cannot be downloaded: .*refused; or get the archive some other way and use cifar10:PATH"):
        cifar10_archive(tmp_path)


def test_two_at_once(server: Server, tmp_path: Path) -> None:
    with (tmp_path / "a.partial").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DataError, match=r"a\.partial: another process is downloading it"):
            download(server.url, tmp_path / "a", md5=MD5)


def test_cache_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"file/a: cannot be written"):
        download(server.url, tmp_path / "file" / "a", md5=MD5)


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("COLORIZE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "colorize"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "colorize"
    monkeypatch.setenv("COLORIZE_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    assert os.fspath(cache_folder()).startswith("/")
