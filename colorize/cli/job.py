"""A command as the driver of a Ray job: what it reads and writes is looked for on every node before it starts.

python -m colorize.cli.job archive s3://bucket/scans s3://bucket/colour

`colorize submit` runs it so, and every file in `jobs/`. Outside a job it is the command alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from colorize.cli.main import main
from colorize.cli.places import COMMANDS, parse

IN_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""The variable that Ray sets for the driver of a job, and for nothing else."""


def run(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits."""
    arguments = sys.argv[1:] if arguments is None else arguments
    sys.exit(main(arguments, around=on_cluster(arguments)))


@contextmanager
def on_cluster(arguments: Sequence[str]) -> Iterator[None]:
    """Joins the cluster that the job is on, and checks that it sees the command's paths; the command then finds Ray connected.

    Raises ClusterError for a path that a node does not see, ConfigError for a relative one.
    """
    if IN_JOB not in os.environ or not arguments or arguments[0] not in COMMANDS:
        yield
        return
    command = parse(arguments)
    from colorize import cluster
    from colorize.submit.visible import check_visible

    with cluster.connect():
        check_visible(read=command.read, written=command.written)
        yield


if __name__ == "__main__":
    run()
