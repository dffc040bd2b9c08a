"""Evaluation as a Ray job.

ray job submit --working-dir . -- python -m jobs.evaluate cifar10 --data cifar10-sample
"""

import sys

from colorize.cli.job import run

if __name__ == "__main__":
    run(["evaluate", *sys.argv[1:]])
