"""A bucket on moto's S3 server, on loopback."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from pyarrow import fs

BUCKET = "pictures"


@contextlib.contextmanager
def s3_server() -> Iterator[Callable[[str], str]]:
    """A function from a folder to its URL, on a server that lives as long as the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL, env=dict(os.environ)
    )
    query = f"scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1"
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert time.monotonic() < deadline, "the S3 server does not come up"
            assert server.poll() is None, "the S3 server has ended"
            time.sleep(0.1)
        store, _ = fs.FileSystem.from_uri(f"s3://user:word@{BUCKET}?{query}&allow_bucket_creation=true")
        store.create_dir(BUCKET)
        yield lambda folder: f"s3://user:word@{BUCKET}/{folder}?{query}"
    finally:
        server.kill()
        server.wait()
