"""The service on a local Ray, asked over HTTP: pictures, batches, limits, lost replicas, new models. The rest is in test_serve_api."""

import contextlib
import dataclasses
import http.client
import io
import json
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
import warnings
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

import colorize.serve
from colorize.cluster import ClusterInfo
from colorize.errors import ClusterError, ConfigError, ModelError, ServiceError
from colorize.imaging.formats import open_scan
from colorize.imaging.picture import read_picture
from colorize.imaging.verify import verify
from colorize.model.card import DEFAULT_VIVIDNESS
from colorize.model.coloring import colorize_scan, views
from colorize.model.colorizer import Colorizer
from colorize.model.colormodel import load_model
from colorize.model.settings import DecodeSettings
from tests.models import small_model
from tests.pictures import encoded, grey_scene, rgb_scene

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Ray Serve 2.60 defines its settings in a way that pydantic deprecates
    from ray import serve
    from ray.serve.schema import ServeDeploySchema

    from colorize.serve.application import build
    from colorize.serve.config import ServeConfig
    from colorize.serve.run import Service, running

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

BATCH, REQUESTS, BODY, UPLOAD_SECONDS = 4, 12, 1 << 20, 10.0
MODEL = small_model(seed=3, working_size=32)
OTHER = dataclasses.replace(
    small_model(seed=4, working_size=48), card=dataclasses.replace(small_model(seed=4, working_size=48).card, name="other")
)
JPEG, PNG = encoded(rgb_scene(), "JPEG"), encoded(rgb_scene(), "PNG")


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


def ask(url: str, body: bytes | None = None, method: str | None = None, **headers: str) -> Reply:
    request = urllib.request.Request(url, data=body, method=method or ("GET" if body is None else "POST"), headers=headers)
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
def config(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> ServeConfig:
    models = tmp_path_factory.mktemp("models")
    OTHER.save(models / "house.safetensors")
    return ServeConfig(
        model=str(model_file), models_dir=str(models), max_body_bytes=BODY, upload_seconds=UPLOAD_SECONDS, max_requests=REQUESTS,
        batch_size=BATCH, batch_wait_seconds=0.3,
    )  # fmt: skip


@pytest.fixture(scope="module")
def service(ray_cluster: ClusterInfo, config: ServeConfig) -> Iterator[Service]:
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
    assert difference.mean() < 0.5, "the same as without a service"
    assert difference.max() <= 8, "but for the rounding of lightness to 16 bits and of bfloat16, which random weights magnify"
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


def test_health_readiness_models_and_measurements(service: Service, colorize_url: str) -> None:
    assert json.loads(ask(f"{service.url}/healthz").body) == {"status": "ok"}
    assert json.loads(ask(f"{service.url}/readyz").body) == {"status": "ok"}
    assert ask(f"{colorize_url}?model=house", PNG).headers["X-Colorize-Model"] == "house"
    models = json.loads(ask(f"{service.url}/v1/models").body)
    assert models["default"] == "small"
    assert {model["name"]: model["loaded"] for model in models["models"]} == {
        "small": True,
        "cifar10": False,
        "house": True,
        "photo": False,
    }

    reply = ask(f"{service.url}/metrics")
    assert reply.headers["Content-Type"].startswith("text/plain")
    samples = [line.rpartition(" ") for line in reply.body.decode().splitlines() if not line.startswith("#")]
    found = {name: float(value) for name, _, value in samples}
    batches = [value for name, value in found.items() if name.startswith("colorize_batch_size_count{replica=")]
    pictures = [value for name, value in found.items() if name.startswith("colorize_batch_size_sum{replica=")]
    assert 0 < sum(batches) <= sum(pictures), "of the model's replica"
    assert any(name.startswith("colorize_requests_total{") and 'route="/v1/colorize"' in name for name in found), "and of the ingress"


def test_a_new_version_of_a_file_in_the_folder_is_the_next_answer(colorize_url: str, config: ServeConfig) -> None:
    assert config.models_dir is not None
    path = Path(config.models_dir) / "changing.safetensors"
    small_model(seed=5).save(path)
    first = ask(f"{colorize_url}?model=changing", PNG).headers["X-Colorize-Model-SHA256"]
    small_model(seed=6).save(path)
    second = ask(f"{colorize_url}?model=changing", PNG).headers["X-Colorize-Model-SHA256"]
    assert first != second
    path.write_bytes(b"no model")
    assert ask(f"{colorize_url}?model=changing", PNG).headers["X-Colorize-Model-SHA256"] == second, "a version that is none changes nothing"


def test_a_batch_comes_back_as_a_streamed_zip(service: Service) -> None:
    sent = io.BytesIO()
    with zipfile.ZipFile(sent, "w") as upload:
        for number in range(3 * BATCH):
            upload.writestr(f"page {number}.png", encoded(grey_scene(20 + number, 30), "PNG") if number != 5 else b"no picture")
    reply = ask(f"{service.url}/v1/colorize/batch", sent.getvalue(), **{"Content-Type": "application/zip"})
    assert reply.headers["Transfer-Encoding"] == "chunked"
    with zipfile.ZipFile(io.BytesIO(reply.body)) as found:
        assert found.testzip() is None
        assert found.namelist() == [*(f"page {number}.png" for number in range(3 * BATCH) if number != 5), "manifest.json"]
        manifest = json.loads(found.read("manifest.json"))
        assert [row["status"] for row in manifest] == ["failed" if number == 5 else "coloured" for number in range(3 * BATCH)]
        assert read_picture(found.read("page 3.png")).pixels.shape == (23, 30, 3)


@pytest.mark.parametrize(("path", "method", "status"), [("/v1/colourise", "POST", 404), ("/v1/colorize", "PUT", 405)])
def test_a_wrong_path_or_method_is_refused(service: Service, path: str, method: str, status: int) -> None:
    reply = ask(service.url + path, b"", method)
    assert reply.status == status
    assert reply.error.startswith(f"{method} {path}:")
    assert reply.headers["X-Content-Type-Options"] == "nosniff"


def test_what_another_site_or_another_name_sends_is_refused(service: Service) -> None:
    assert ask(f"{service.url}/v1/models", None, Origin="http://evil.example").status == 403
    assert ask(f"{service.url}/v1/models", None, Host="evil.example").status == 403
    assert ask(f"{service.url}/v1/models", None, **{"X-Forwarded-For": "127.0.0.1"}).status == 403


def test_a_body_that_does_not_arrive_is_refused(service: Service) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=120) as upload:
        upload.sendall(f"POST /v1/colorize HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000\r\n\r\n".encode() + JPEG[:100])
        assert upload.recv(100).startswith(b"HTTP/1.1 408 ")


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
    replies: list[Reply] = []
    deadline = time.monotonic() + 240
    while not any(reply.status == 503 for reply in replies):  # on busy cores the places can be free again before the picture is through
        assert time.monotonic() < deadline, "never full"
        with contextlib.ExitStack() as open_uploads:
            for _ in range(REQUESTS):
                upload = open_uploads.enter_context(socket.create_connection((host, int(port)), timeout=120))
                upload.sendall(head + JPEG[:100])  # and no more: each takes a place
            taken = time.monotonic() + UPLOAD_SECONDS
            while time.monotonic() < taken and not any(reply.status == 503 for reply in replies):
                replies.append(ask(colorize_url, PNG))
            assert ask(f"{service.url}/healthz").status == 200
    assert {reply.status for reply in replies} <= {200, 503}
    full = replies[-1]
    assert int(full.headers["Retry-After"]) >= 1
    assert "full" in full.error
    assert _ask_until(200, colorize_url).headers["Content-Type"] == "image/png"


def _ask_until(status: int, url: str) -> Reply:
    deadline = time.monotonic() + 240
    while (reply := ask(url, PNG)).status != status:
        assert reply.status in (200, 503)
        assert time.monotonic() < deadline, f"still {reply.status}"
        time.sleep(0.1)
    return reply


class Load:
    """Clients that send pictures until they are told to stop, and keep what came back."""

    def __init__(self, url: str, clients: int = 4) -> None:
        self._url, self._done = url, threading.Event()
        self.replies: list[Reply] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def _run(self) -> None:
        while not self._done.is_set():
            self.replies.append(ask(self._url, PNG))

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()


def test_a_killed_model_replica_costs_no_request(service: Service, colorize_url: str) -> None:
    (pid,) = replicas_of("Predictor")
    assert b"MALLOC_MMAP_MAX_=0" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"), "or it is half as fast"
    with Load(colorize_url) as load:
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 240
        while pid in (left := replicas_of("Predictor")) or not left or len(load.replies) < 20:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    lost = [reply for reply in load.replies if reply.status != 200]
    assert all(reply.status == 503 and "Retry-After" in reply.headers for reply in lost), "which a client sends again"
    assert _ask_until(200, colorize_url).status == 200


def test_a_new_model_rolls_out_without_a_failed_request(service: Service, colorize_url: str, config: ServeConfig, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    OTHER.save(path)
    with Load(colorize_url) as load:
        serve.run(build(config.model_copy(update={"model": str(path)})), name="colorize", route_prefix="/")
        deadline = time.monotonic() + 240
        while not load.replies or load.replies[-1].headers["X-Colorize-Model"] != "other":
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert {reply.status for reply in load.replies} == {200}
    assert {reply.headers["X-Colorize-Model"] for reply in load.replies} == {"small", "other"}


def replicas_of(deployment: str) -> list[int]:
    """The processes of a deployment's replicas that descend from this one: other services may run on this machine."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if f"ServeReplica:colorize:{deployment}" in (folder / "cmdline").read_text():
                pid = int(folder.name)
                ancestor = pid
                while ancestor > 1 and ancestor != os.getpid():
                    ancestor = int(Path(f"/proc/{ancestor}/stat").read_text().rpartition(")")[2].split()[1])
                if ancestor == os.getpid():
                    found.append(pid)
    return found


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


def test_others_are_answered_only_with_keys(ray_cluster: ClusterInfo, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLORIZE_API_KEYS", raising=False)
    for host, reason in (("0.0.0.0", "API keys are needed"), ("::", "API keys are needed"), ("localhost", "must be an IP address")):
        with pytest.raises(ConfigError, match=reason), running(ServeConfig(model=str(model_file)), port=free_port(), host=host):
            pass
    monkeypatch.setenv("COLORIZE_API_KEYS", "short")
    with pytest.raises(ConfigError, match="COLORIZE_API_KEYS: entry 1") as raised, running(ServeConfig(), port=free_port()):
        pass
    assert "short" not in str(raised.value)


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
    assert application.import_path == "colorize.serve:app"
    assert colorize.serve.app is build
    config = ServeConfig.model_validate(application.args)
    assert config == ServeConfig(), "it shows the defaults"
    assert isinstance(build(config), serve.Application)
