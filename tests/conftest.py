"""What tests of several folders share."""

from collections.abc import Callable, Iterator

import pytest

from tests.buckets import s3_server


@pytest.fixture(scope="module")
def bucket() -> Iterator[Callable[[str], str]]:
    """A function from a folder to its URL, on a server of the module's own."""
    with s3_server() as url_of:
        yield url_of
