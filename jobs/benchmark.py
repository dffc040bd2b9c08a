"""Measures this program against its rivals, side by side on this machine.

python -m jobs.benchmark lab --json lab.json
python -m jobs.benchmark train --json train.json
python -m jobs.benchmark archive --json archive.json
python -m jobs.benchmark predict --json predict.json
python -m jobs.benchmark scale --json scale.json
python -m jobs.benchmark serve --json serve.json
python -m jobs.benchmark serve --faults --json faults.json

Every figure is the median of alternating runs; the JSON holds each run's number too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from colorize import cluster
from colorize.errors import ColorizeError
from colorize.imaging.files import in_the_way, write_whole
from colorize.train.run import hardware, processor

NAMES = ("lab", "train", "archive", "predict", "scale", "serve")
WITHOUT_RAY = ("predict", "scale", "serve")
"""Those for which none is started here; `scale` starts its nodes, `serve` the service, which has its own."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m jobs.benchmark", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--runs", type=int, default=3, help="alternating runs of each rival, 3 or more")
    parser.add_argument("--address", help="a Ray cluster to join; without it a local one is started (not for serve, which starts its own)")
    parser.add_argument("--faults", action="store_true", help="of serve: overload, a killed replica and a roll-out; one run, 13 minutes")
    arguments = parser.parse_args()
    if arguments.runs < 3:
        parser.error("--runs: a median needs 3 or more")
    if arguments.name in WITHOUT_RAY and arguments.address:
        parser.error(f"--address: {arguments.name} joins no cluster")
    if arguments.faults and arguments.name != "serve":
        parser.error("--faults: is an option of serve")
    if arguments.json is not None and (told := in_the_way(arguments.json)):  # said before minutes of measuring
        parser.error(f"--json: {arguments.json}: {told}")
    try:
        _measure(arguments)
    except ColorizeError as error:
        sys.exit(f"colorize: {error}")


def _measure(arguments: argparse.Namespace) -> None:
    benchmark = import_module(f"jobs.benchmarks.{arguments.name}")
    with contextlib.ExitStack() as stack:
        if arguments.name not in WITHOUT_RAY:
            print(stack.enter_context(cluster.connect(arguments.address)).describe())
        runs: dict[str, list[float]] = benchmark.measure_faults(1) if arguments.faults else benchmark.measure(arguments.runs)
        result = {
            "benchmark": arguments.name,
            "hardware": f"{os.cpu_count()} CPUs ({processor()})" if arguments.name in WITHOUT_RAY else hardware(),
            "versions": {name: version(name) for name in ("colorize", "ray", "torch", "scikit-image")},
            "figures": {key: round(statistics.median(values), 4) for key, values in runs.items()},
            "runs": runs,
        }
    for key, value in result["figures"].items():
        print(f"{key:32} {value:>12,.3f}   {' '.join(f'{run:,.2f}' for run in runs[key])}")
    if arguments.json is not None:
        write_whole(arguments.json, (json.dumps(result, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
