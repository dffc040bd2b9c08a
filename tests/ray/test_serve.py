"""The service on a local Ray, asked over HTTP: pictures, batches, limits, and what a client gets wrong."""

import contextlib
import http.client
import json
import socket
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from colorize.cluster import ClusterInfo
from colorize.errors import ClusterError, ConfigError, ModelError, ServiceError
from colorize.imaging.formats import open_scan
from colorize.imaging.picture import read_picture
from colorize.imaging.verify import verify
from colorize.model.card import DEFAULT_VIVIDNESS
from colorize.model.coloring import colorize_scan, views
from colorize.model.colorizer import Colorizer
from colorize.model.colormodel import load_model
from colorize.model.palette import DecodeSettings
from tests.models import small_model
from tests.pictures import encoded, grey_scene, jpeg_claiming, png_header, rgb_scene

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Ray Serve 2.60 defines its settings in a way that pydantic deprecates
    from ray import serve
    from ray.serve.schema import ServeDeploySchema

    from colorize.serve.application import build
    from colorize.serve.config import ServeConfig
    from colorize.serve.run import Service, running

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

BATCH, REQUESTS, BODY = 4, 12, 1 << 20
MODEL = small_model(seed=3, working_size=32)


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def error(self) -> str:
        assert self.headers["Content-Type"] == "application/json"
        answer = json.loads(self.body)
        assert list(answer) == ["error"]
        assert "\n" not in answer["error"]
        return str(answer["error"])


def ask(url: str, body: bytes | None = None, method: str | None = None) -> Reply:
    request = urllib.request.Request(url, data=body, method=method or ("GET" if body is None else "POST"))
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return Reply(response.status, response.headers, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, error.headers, error.read())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    MODEL.save(path)
    return path


@pytest.fixture(scope="module")
def service(ray_cluster: ClusterInfo, model_file: Path) -> Iterator[Service]:
    config = ServeConfig(model=str(model_file), max_body_bytes=BODY, max_requests=REQUESTS, batch_size=BATCH, batch_wait_seconds=0.3)
    with running(config, port=free_port()) as service:
        yield service


@pytest.fixture
def colorize_url(service: Service) -> str:
    return f"{service.url}/v1/colorize"


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("pixels", [grey_scene(75, 101), rgb_scene(75, 101)], ids=["grey", "color"])
def test_a_picture_comes_back_in_color_in_its_own_format_and_size(
    colorize_url: str, model_file: Path, kind: str, pixels: np.ndarray
) -> None:
    sent = encoded(pixels, kind)
    reply = ask(f"{colorize_url}?vividness=0.5", sent)
    assert (reply.status, reply.headers["Content-Type"]) == (200, f"image/{kind.lower()}")
    back = read_picture(reply.body)
    assert (back.format, back.pixels.shape) == (kind, (75, 101, 3))
    assert verify(open_scan(sent), open_scan(reply.body)).is_faithful

    # From the file, as the service: it holds the convolutions in float16.
    colorizer = Colorizer(load_model(model_file))
    settings = DecodeSettings(vividness=0.5)
    expected = read_picture(colorize_scan(open_scan(sent), colorizer, settings)).pixels
    difference = np.abs(back.pixels.astype(int) - expected)
    assert difference.mean() < 0.1, "the same as without a service"
    assert difference.max() <= 4, "but for the rounding of bfloat16, with other threads"
    (prediction,) = colorizer.predict(views(open_scan(sent), MODEL.card), settings)
    assert abs(float(reply.headers["X-Colorize-Mean-Confidence"]) - prediction.mean_confidence) < 0.01
    assert reply.headers["X-Colorize-Model"] == MODEL.card.name


def test_vividness_changes_the_picture(colorize_url: str) -> None:
    sent = encoded(grey_scene(), "PNG")
    replies = (ask(colorize_url + query, sent).body for query in ("", f"?vividness={DEFAULT_VIVIDNESS}", "?vividness=0", "?vividness=1"))
    plain, default, dull, vivid = (read_picture(body).pixels.astype(int) for body in replies)
    assert np.abs(plain - default).mean() < 0.5 < np.abs(vivid - dull).mean()


def test_requests_are_batched_and_keep_their_own_picture(colorize_url: str) -> None:
    sides = [(20 + 7 * n, 40) for n in range(2 * BATCH)]
    with ThreadPoolExecutor(len(sides)) as clients:
        replies = list(clients.map(lambda side: ask(colorize_url, encoded(grey_scene(*side), "PNG")), sides))
    assert [read_picture(reply.body).pixels.shape[:2] for reply in replies] == sides
    batches = [int(reply.headers["X-Colorize-Batch-Size"]) for reply in replies]
    assert 1 < max(batches) <= BATCH


def test_one_batch_serves_different_settings(colorize_url: str) -> None:
    sent = encoded(grey_scene(), "PNG")
    queries = [f"?vividness={n % 2}" for n in range(BATCH)]
    alone = [ask(colorize_url + query, sent).body for query in queries[:2]]
    with ThreadPoolExecutor(BATCH) as clients:
        together = list(clients.map(lambda query: ask(colorize_url + query, sent).body, queries))
    for n, body in enumerate(together):
        difference = [np.abs(read_picture(body).pixels.astype(int) - read_picture(other).pixels).mean() for other in alone]
        assert difference[n % 2] < difference[1 - n % 2]


def test_health(service: Service) -> None:
    reply = ask(f"{service.url}/healthz")
    assert (reply.status, json.loads(reply.body)) == (200, {"status": "ok", "model": "small"})


def test_the_openapi_document_names_the_paths_and_their_errors(service: Service) -> None:
    document = json.loads(ask(f"{service.url}/openapi.json").body)
    assert set(document["paths"]) == {"/healthz", "/v1/colorize"}
    operation = document["paths"]["/v1/colorize"]["post"]
    assert set(operation["requestBody"]["content"]) == {"image/jpeg", "image/png"}
    assert set(operation["responses"]) == {"200", "413", "415", "422", "503"}


JPEG, PNG = encoded(rgb_scene(), "JPEG"), encoded(rgb_scene(), "PNG")


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 422, "empty"),
        (b"hello", 415, "text, not a picture"),
        (bytes(range(256)), 415, "no picture of a known format"),
        (encoded(rgb_scene(), "GIF"), 415, "GIF"),
        (JPEG[:3], 422, "damaged JPEG"),
        (JPEG[: len(JPEG) // 2], 422, "truncated or damaged JPEG"),
        (PNG[:20], 422, "damaged PNG"),
        (PNG[:-20], 422, "truncated PNG"),
        (PNG[:100] + b"\0\1\2" + PNG[103:], 422, "damaged PNG"),
        (jpeg_claiming(20_000, 10_001), 413, "200,020,000 pixels"),
        (png_header(60_000, 60_000), 413, "3,600,000,000 pixels"),
    ],
    ids=str.split("nothing text bytes GIF JPEG-start half-JPEG PNG-start cut-PNG altered-PNG huge-JPEG huge-PNG"),
)
def test_what_is_no_picture_is_refused_with_the_reason(colorize_url: str, body: bytes, status: int, reason: str) -> None:
    reply = ask(colorize_url, body)
    assert reply.status == status
    assert reason in reply.error


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("vividness=1.01", "vividness '1.01'"),
        ("vividness=-0.1", "vividness '-0.1'"),
        ("vividness=nan", "vividness 'nan'"),
        ("vividness=much", "vividness 'much'"),
        ("vividness=", "vividness ''"),
        ("vividnes=1", "vividnes '1'"),
    ],
)
def test_a_wrong_parameter_is_refused_with_its_name_and_value(colorize_url: str, query: str, reason: str) -> None:
    reply = ask(f"{colorize_url}?{query}", PNG)
    assert reply.status == 422
    assert reply.error.startswith(reason)


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/", "GET", 404),
        ("/v1/colourise", "POST", 404),
        ("/v1/colorize", "GET", 405),
        ("/v1/colorize", "PUT", 405),
        ("/healthz", "POST", 405),
    ],
)
def test_a_wrong_path_or_method_is_refused(service: Service, path: str, method: str, status: int) -> None:
    reply = ask(service.url + path, b"" if method != "GET" else None, method)
    assert reply.status == status
    assert reply.error.startswith(f"{method} {path}:")


def test_too_large_a_body_is_refused(colorize_url: str) -> None:
    padded = PNG + bytes(BODY)
    assert "1,048,576 bytes" in ask(colorize_url, padded).error
    assert ask(colorize_url, padded).status == 413


def test_a_body_that_is_announced_too_large_is_refused_before_it_is_sent(service: Service) -> None:
    connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=120)
    with contextlib.closing(connection):
        connection.putrequest("POST", "/v1/colorize")
        connection.putheader("Content-Length", "1000000000000")
        connection.endheaders()
        response = connection.getresponse()
        assert response.status == 413


def test_a_body_of_unknown_length_is_refused_once_it_is_too_large(service: Service) -> None:
    connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=120)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/colorize", body=iter([PNG, *[bytes(1 << 16)] * 20]), encode_chunked=True)
        response = connection.getresponse()
        assert response.status == 413
        assert b"too large" in response.read()


def test_a_full_service_says_so_and_recovers_when_clients_go_away(service: Service, colorize_url: str) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    head = f"POST /v1/colorize HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000\r\n\r\n".encode()
    uploads = [socket.create_connection((host, int(port)), timeout=120) for _ in range(REQUESTS)]
    with contextlib.ExitStack() as open_uploads:
        for upload in uploads:
            open_uploads.enter_context(upload)
            upload.sendall(head + JPEG[:100])  # and no more: each takes a place
        reply = _ask_until(503, colorize_url)
        assert int(reply.headers["Retry-After"]) >= 1
        assert "full" in reply.error
        assert ask(f"{service.url}/healthz").status == 200
    assert _ask_until(200, colorize_url).headers["Content-Type"] == "image/png"


def _ask_until(status: int, url: str) -> Reply:
    deadline = time.monotonic() + 240
    while (reply := ask(url, PNG)).status != status:
        assert reply.status in (200, 503)
        assert time.monotonic() < deadline, f"still {reply.status}"
        time.sleep(0.1)
    return reply


def test_a_service_does_not_start_beside_another(service: Service, model_file: Path) -> None:
    with pytest.raises(ServiceError, match="runs already on"), running(ServeConfig(model=str(model_file)), port=free_port()):
        pass
    assert ask(f"{service.url}/healthz").status == 200, "and leaves the other alone"


def test_what_cannot_be_served_is_one_line(ray_cluster: ClusterInfo, tmp_path: Path, model_file: Path) -> None:
    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes(model_file.read_bytes()[:-100])
    for config, port, error, reason in (
        (ServeConfig(model=str(tmp_path / "none")), 8000, ModelError, "no such model"),
        (ServeConfig(model=str(truncated)), 8000, ModelError, "truncated"),
        (ServeConfig(model=str(model_file)), 0, ConfigError, "--port 0"),
        (ServeConfig(model=str(model_file)), 65536, ConfigError, "--port 65536"),
        (ServeConfig(model=str(model_file), model_cpus=99), free_port(), ClusterError, "99.5 CPUs, the cluster has 2"),
    ):
        with pytest.raises(error, match=reason) as raised, running(config, port=port):
            pass
        assert "\n" not in str(raised.value)


def test_a_port_in_use_is_one_line_that_names_it(ray_cluster: ClusterInfo, model_file: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ServiceError, match=f"port {port} .* in use"), running(ServeConfig(model=str(model_file)), port=port):
            pass


def test_the_deployment_file_is_what_serve_and_the_application_understand() -> None:
    path = Path(__file__).parents[2] / "cluster" / "serve.yaml"
    schema = ServeDeploySchema.model_validate(yaml.safe_load(path.read_text()))
    assert schema.http_options.host == "127.0.0.1"
    (application,) = schema.applications
    assert application.import_path == f"{build.__module__}:{build.__name__}"
    config = ServeConfig.model_validate(application.args)
    assert config == ServeConfig(), "it shows the defaults"
    assert isinstance(build(config), serve.Application)
