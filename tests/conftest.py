"""What tests of several folders share."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

from tests.buckets import s3_server

settings.register_profile("colorize", deadline=None)  # an example takes as long as the machine's other work makes it
settings.load_profile("colorize")


@pytest.fixture(scope="module")
def bucket() -> Iterator[Callable[[str], str]]:
    """A function from a folder to its URL, on a server of the module's own."""
    with s3_server() as url_of:
        yield url_of
