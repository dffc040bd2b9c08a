"""What Ray's own processes write onto the terminal: known noise is left out, all else comes through."""

import os

import pytest

from colorize import cluster

KILLED = b"(raylet) Task MapWorker(MapBatches(Painter)).submit failed. There are infinite retries remaining, so the task will be retried. "


def test_known_noise_is_left_out_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    with cluster._without_noise():
        os.write(2, KILLED + b"Error: The actor is dead because it was killed by `ray.kill`.\n")
        os.write(2, b"[1] core_worker.cc:2: Actor with class name: 'MapWorker(f)' has constructor arguments in the object store\n")
        os.write(2, KILLED + b"Error: The actor is dead because its node has died.\nanother line\n")
    assert capfd.readouterr().err.encode() == KILLED + b"Error: The actor is dead because its node has died.\nanother line\n"
