"""Training as a Ray job.

ray job submit --working-dir . -- python -m jobs.train --data cifar10-sample --epochs 4 --run /shared/runs/sample
"""

import sys

from colorize.cli.job import run

if __name__ == "__main__":
    run(["train", *sys.argv[1:]])
