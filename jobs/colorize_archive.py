"""The bulk run as a Ray job: `colorize archive` with the same arguments, on the cluster that the job is submitted to.

ray job submit --working-dir . -- python -m jobs.colorize_archive /archive/scans /archive/colour --vividness 0.5

It joins that cluster by the RAY_ADDRESS that Ray sets for its jobs. Every node must see both folders under these paths.
"""

import sys

from colorize.cli.job import run

if __name__ == "__main__":
    run(["archive", *sys.argv[1:]])
