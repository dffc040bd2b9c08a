"""What tests of several folders share."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

from tests.buckets import s3_server

settings.register_profile("colorize", deadline=None)  # an example takes as long as the machine's other work makes it
settings.load_profile("colorize")


def pytest_configure(config: pytest.Config) -> None:
    """Temporary files of all processes that tests start go with the tests: Ray keeps its sessions, and its dashboard an empty folder each.

    What a failed test was given (`tmp_path`) stays, where pytest has it.
    """
    if hasattr(config, "workerinput"):
        return  # a process of pytest-xdist, which has the environment of the one that started it
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    folder = tempfile.mkdtemp(prefix="c")  # a short name: the path of a socket has 107 characters at most
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.fixture(scope="module")
def bucket() -> Iterator[Callable[[str], str]]:
    """A function from a folder to its URL, on a server of the module's own."""
    with s3_server() as url_of:
        yield url_of
