"""What Ray's own processes write onto the terminal: known noise is left out, all else comes through."""

import os

import pytest
from ray._private import worker

from colorize import cluster

KILLED = b"(raylet) Task MapWorker(MapBatches(Painter)).submit failed. There are infinite retries remaining, so the task will be retried. "


def test_known_noise_is_left_out_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    with cluster._without_noise():
        os.write(2, KILLED + b"Error: The actor is dead because it was killed by `ray.kill`.\n")
        os.write(2, b"[1] core_worker.cc:2: Actor with class name: 'MapWorker(f)' has constructor arguments in the object store\n")
        os.write(2, KILLED + b"Error: The actor is dead because its node has died.\nanother line\n")
    assert capfd.readouterr().err.encode() == KILLED + b"Error: The actor is dead because its node has died.\nanother line\n"


def test_nor_does_ray_print_it(capfd: pytest.CaptureFixture[str]) -> None:
    """As Ray's thread does that listens to what goes wrong on other nodes."""
    noise = KILLED.decode() + "Error: The actor is dead because it was killed by `ray.kill`."

    def told(line: str) -> str:
        worker.print_to_stdstream({"lines": [line], "pid": "raylet", "is_err": False}, ignore_prefix=True)
        return capfd.readouterr().out

    with cluster._without_noise():
        assert told(noise) == ""
        assert told("another line") == "another line\n"
    assert told(noise) == f"{noise}\n", "it is as it was"
