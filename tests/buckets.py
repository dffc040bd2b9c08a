"""A bucket on moto's S3 server, on loopback."""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import IO

from pyarrow import fs

BUCKET = "pictures"


@contextlib.contextmanager
def s3_server() -> Iterator[Callable[[str], str]]:
    """A function from a folder to its URL, on a server that lives as long as the block."""
    with tempfile.TemporaryFile("a+") as told:
        # It takes a free port itself and says which: one that is chosen for it may be another process's by the time it comes up.
        server = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"], stderr=told, env=dict(os.environ))
        try:
            query = f"scheme=http&endpoint_override=127.0.0.1:{_port(server, told)}&region=us-east-1"
            store, _ = fs.FileSystem.from_uri(f"s3://user:word@{BUCKET}?{query}&allow_bucket_creation=true")
            store.create_dir(BUCKET)
            yield lambda folder: f"s3://user:word@{BUCKET}/{folder}?{query}"
        finally:
            server.kill()
            server.wait()


def _port(server: subprocess.Popen[bytes], told: IO[str]) -> int:
    """The port on which the server says that it listens, as soon as it does."""
    deadline = time.monotonic() + 60
    while True:
        told.seek(0)
        if said := re.search(r"Running on http://127\.0\.0\.1:(\d+)", told.read()):
            return int(said[1])
        assert time.monotonic() < deadline, "the S3 server does not come up"
        assert server.poll() is None, "the S3 server has ended"
        time.sleep(0.1)
