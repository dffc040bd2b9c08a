"""What `POST /v1/archives` makes of a body, before anything of Ray is asked: the application itself, without its network."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colorize.errors import ConfigError
from colorize.model.card import read_card, resolve

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Ray Serve 2.60 defines its settings in a way that pydantic deprecates
    from starlette.testclient import TestClient

    from colorize.serve.api import create_app
    from colorize.serve.catalog import Catalog
    from colorize.serve.config import ServeConfig
    from colorize.serve.desk import Desk


def asking(*roots: str) -> TestClient:
    desk = Desk(ServeConfig(archive_roots=roots), Catalog(read_card(resolve("photo")), None), cast(Any, None))
    return TestClient(create_app(desk), base_url="http://127.0.0.1", client=("127.0.0.1", 50_000))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with asking(str(tmp_path_factory.mktemp("root"))) as client:
        yield client


def error(client: TestClient, body: bytes) -> tuple[int, str]:
    reply = client.post("/v1/archives", content=body)
    told = reply.json()
    assert list(told) == ["error"]
    assert told["error"].isprintable()
    return reply.status_code, told["error"]


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 422, "body: invalid JSON"),
        (b"\xff{", 422, "body: invalid JSON"),
        (b"[" * 60_000, 422, "body: invalid JSON"),
        (b"[]", 422, "body: input should be an object"),
        (b"{}", 422, "source: field required"),
        (b'{"source": "/a", "target": "/b", "force": true}', 422, "force"),
        (b'{"source": "/a", "target": 1}', 422, "target"),
        (b'{"source": "/a", "target": "/b", "vividness": NaN}', 422, "vividness"),
        (b'{"source": "/a", "target": "/b", "vividness": 1.01}', 422, "vividness"),
        (b'{"source": "/a", "target": "/b", "recolor": "perhaps"}', 422, "recolor"),
        (b'{"source": "/a", "target": "/b"}', 403, "/a: lies in none of the places"),
        (b'{"source": "\\ud800", "target": "/b"}', 422, ""),
        (b" " * 70_000, 413, "the body: is too large"),
        (b" " * 200_000, 413, "the body: is too large"),
    ],
)
def test_a_body_that_is_no_order_is_a_4xx_of_one_line(client: TestClient, body: bytes, status: int, reason: str) -> None:
    assert error(client, body)[0] == status
    assert reason in error(client, body)[1]


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200)
    | st.dictionaries(st.sampled_from(["source", "target", "model"]), st.text()).map(lambda d: json.dumps(d).encode())
)
def test_any_body_is_a_4xx(client: TestClient, body: bytes) -> None:
    assert 400 <= error(client, body)[0] < 500


def test_without_roots_there_are_no_runs() -> None:
    with asking() as client:
        for method, path in (("POST", ""), ("GET", ""), ("GET", "/archive-1"), ("DELETE", "/archive-1")):
            body = b'{"source": "/a", "target": "/b"}' if method == "POST" else None
            reply = client.request(method, f"/v1/archives{path}", content=body)
            assert reply.status_code == 403
            assert reply.json() == {"error": "bulk runs: the operator of this service allows none: its archive_roots are empty"}


def test_where_there_is_no_ray_there_are_no_runs(client: TestClient) -> None:
    for path in ("", "/archive-20260101T000000-00000000"):
        reply = client.get(f"/v1/archives{path}")
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "30")
        assert "there is no Ray here" in reply.json()["error"]


def test_roots_that_make_no_sense_are_no_configuration() -> None:
    with pytest.raises(ValueError, match=r"archive_roots: relative: is neither an absolute path nor a URL") as raised:
        ServeConfig(archive_roots=("relative",))
    assert not isinstance(raised.value, ConfigError)


def test_the_document_describes_an_order(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    schema = document["paths"]["/v1/archives"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]) == {"source", "target", "vividness", "model", "recolor"}
    assert schema["required"] == ["source", "target"]


def test_nothing_is_looked_up_for_a_place_outside(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    told = {
        error(client, json.dumps({"source": str(tmp_path / name), "target": "/b"}).encode())[1].replace(name, "")
        for name in ("there", "absent")
    }
    assert len(told) == 1
