"""The service over several nodes (`tests.nodes`), and a customer of it that counts what it is answered and what it loses."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from PIL import Image

from colorize import Client
from colorize.serve.keys import hashed_keys
from tests.nodes import Node, Nodes
from tests.pictures import encoded, grey_scene

KEY = "0123456789abcdef0123456789abcdef"
PORT = 8000

_SERVICE = """
import sys
import ray
from ray import serve
from ray.serve.config import HTTPOptions
from colorize.serve import app
from colorize.serve.config import ServeConfig

port, where, key, model = sys.argv[1:]
ray.init(address="auto", log_to_driver=False)
serve.start(proxy_location=where, http_options=HTTPOptions(host="0.0.0.0", port=int(port)))
config = ServeConfig(model=model, ingress_replicas=2, model_replicas=2, ingress_cpus=0.25, model_cpus=0.25, api_keys=(key,))
serve.run(app(config), name="colorize")
print("Ready", flush=True)
"""


@contextmanager
def service(nodes: Nodes, where: str, model: str) -> Iterator[None]:
    """The service with two replicas of each part, which stays when the script that starts it has ended, as by `serve deploy`."""
    (digest,) = hashed_keys(KEY)
    started = nodes.start(sys.executable, "-c", _SERVICE, PORT, where, digest, model)
    printed, errors = started.communicate(timeout=400)
    assert printed.endswith("Ready\n"), errors
    yield


def replicas(nodes: Nodes, node: Node) -> list[int]:
    """The processes of a node that are replicas."""
    return nodes.processes(node, b"ServeReplica")


class Customer:
    """Sends pictures one after another from a thread, and keeps count."""

    def __init__(self, node: Node) -> None:
        self.answered = 0
        self.failed: list[str] = []
        self._picture = encoded(grey_scene(90, 120), "JPEG")
        self._done = threading.Event()
        self._client = Client(f"http://{node.address}:{PORT}", api_key=KEY, attempts=40, patience=300.0, timeout=60.0)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Customer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        with self._client as client:
            while not self._done.is_set():
                try:
                    answer = client.colorize(self._picture)
                    assert Image.open(BytesIO(answer.data)).size == (120, 90)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is a picture lost
                    self.failed.append(repr(error))
                    time.sleep(1)
                else:
                    self.answered += 1

    def wait(self, more: int, seconds: float = 300) -> None:
        """Until so many further pictures are answered."""
        goal, deadline = self.answered + more, time.monotonic() + seconds
        while self.answered < goal:
            assert not self.failed, self.failed
            assert time.monotonic() < deadline, f"{self.answered} answered"
            time.sleep(0.1)
