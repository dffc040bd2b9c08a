"""Ray's token on this machine: read from where Ray reads it, and a file without one told in one line."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

from colorize import auth
from colorize.cli.main import main
from colorize.cluster import find
from colorize.errors import ClusterError
from tests.jobservers import JobServer, serving


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ray keeps a token that it has read."""
    for name in (auth.MODE, auth.TOKEN, auth.TOKEN_PATH, "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    AuthenticationTokenLoader.instance().reset_cache()
    yield
    AuthenticationTokenLoader.instance().reset_cache()


def test_a_token_is_read_where_ray_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("abc\n")
    monkeypatch.setenv(auth.TOKEN_PATH, str(tmp_path / "token"))
    assert auth.token_file() == tmp_path / "token"
    assert auth.has_token()
    assert auth.header() == {"authorization": "Bearer abc"}
    monkeypatch.setenv(auth.MODE, "disabled")
    assert auth.header() == {}
    assert auth.problem() == "this Ray asks for a token, and RAY_AUTH_MODE says that none is shown: leave it out"


@pytest.fixture(params=["missing", "empty", "folder"])
def no_token(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """RAY_AUTH_TOKEN_PATH names it; what is said of it."""
    path = tmp_path / "token"
    if request.param == "empty":
        path.touch()
    elif request.param == "folder":
        path.mkdir()
    monkeypatch.setenv(auth.TOKEN_PATH, str(path))
    why = {"missing": "No such file or directory", "empty": "it is empty", "folder": "Is a directory"}[request.param]
    return f"RAY_AUTH_TOKEN_PATH {path}: no token can be read there: {why}; name its file, or leave it out"


def test_a_file_without_a_token_is_one_line(no_token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for ask in (auth.has_token, auth.header, auth.use_token):
        with pytest.raises(ClusterError) as error:
            ask()
        assert str(error.value) == no_token
    assert auth.problem() == no_token
    monkeypatch.setenv(auth.TOKEN, "abc")  # which Ray takes first
    assert auth.header() == {"authorization": "Bearer abc"}


@pytest.mark.parametrize("command", [["jobs"], ["schedule", "run", "x"], ["submit", "archive", "s3://in", "s3://out"]], ids=" ".join)
def test_a_command_says_it(no_token: str, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ["--store", str(tmp_path / "store")] if command[0] == "schedule" else []
    if store:
        assert main(["schedule", "add", "x", "--cron", "@daily", "--timezone", "UTC", *store, "--", "archive", "s3://in", "s3://out"]) == 0
    with serving(JobServer(token="a" * 64)) as server:
        assert main([*command, "--address", server.url, *store]) == 1
        assert main([*command, "--address", server.url.removeprefix("http://"), *store]) == 1
    assert [line for line in capsys.readouterr().err.splitlines() if line.strip()] == [f"colorize: {no_token}"] * 2


class Refusing(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A head that asks for a token."""

    def service(self, _: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda _, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token"))


def test_joining_a_head_says_it(no_token: str) -> None:
    head = grpc.server(ThreadPoolExecutor(1), handlers=[Refusing()])
    port = head.add_insecure_port("0.0.0.0:0")
    head.start()
    try:
        with pytest.raises(ClusterError) as error:
            find(f"127.0.0.1:{port}")
    finally:
        head.stop(None).wait()
    assert str(error.value) == no_token


@pytest.mark.parametrize("content", [b"\xff\xfe", "tök".encode(), b"a\tb"])
def test_a_token_that_is_no_text_is_not_repeated(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_bytes(content)
    monkeypatch.setenv(auth.TOKEN_PATH, str(tmp_path / "token"))
    with pytest.raises(ClusterError, match=r"is not one line of plain characters: copy it anew$"):
        auth.header()


def test_a_job_servers_address_is_not_a_heads() -> None:
    with pytest.raises(
        ClusterError, match=r"^http://head:8265 \(from RAY_ADDRESS\): is a job server's address: give host:port of the head$"
    ):
        find("http://head:8265", " (from RAY_ADDRESS)")
