"""`colorize submit`: another command of this program, on a cluster, as a Ray job; and `colorize jobs`, which looks after them."""

from __future__ import annotations

import dataclasses
import json as json_module
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colorize.cli.places import COMMANDS, parse
from colorize.errors import ClusterError, ConfigError

if TYPE_CHECKING:
    from colorize.submit.jobs import JobClient, JobState

STOPPED = 130
"""The exit code of a command that was interrupted, and of a job that was stopped."""

ENDING_SECONDS = 30.0
"""How long the cluster may take to say how a job ended whose log is complete."""

SERVER = typer.Option(
    metavar="URL",
    help="The cluster's job server, http://host:8265, or host:port of the cluster; without it RAY_API_SERVER_ADDRESS or RAY_ADDRESS, "
    "else the Ray of this machine.",
)
JOB = typer.Argument(metavar="ID", help="The job's id.", show_default=False)

app = typer.Typer(help="List, watch and stop the jobs of a cluster.", invoke_without_command=True)


def submit(
    context: typer.Context,
    command: Annotated[
        list[str],
        typer.Argument(metavar="COMMAND…", help=f"One of {', '.join(COMMANDS)}, with its own options.", show_default=False),
    ],
    address: Annotated[str | None, SERVER] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the job's id and leave it alone.")] = False,
    entrypoint_num_cpus: Annotated[
        float,
        typer.Option(
            metavar="NUMBER",
            help="CPUs that the command itself keeps, beside its workers'. More than 0: it may run on any node, not only on the head.",
        ),
    ] = 0,
) -> None:
    """Run another command on a cluster, as a Ray job: colorize submit train --data folder:s3://bucket/photos --run s3://bucket/runs/one

    The job gets this very program with it: the nodes need only what it depends on. Its log is followed; Ctrl-C leaves it alone. Relative
    paths become absolute, and before the work starts every node is asked whether it sees them. The exit code is 0 when the job has
    succeeded, 1 when it has failed, 130 when it was stopped. The options of the command: colorize COMMAND --help.
    """  # fmt: skip
    from colorize.cli.display import console
    from colorize.submit.jobs import JobClient, new_id

    job = parse(command, folder=Path.cwd(), context=context)
    client = JobClient(address)
    id = new_id(job.arguments)
    there = f" --address {client.address}"
    try:
        client.start(job.arguments, id=id, cpus=entrypoint_num_cpus)
    except KeyboardInterrupt:
        print(f"if it was taken already, the job goes on: colorize jobs log {id}{there}, colorize jobs stop {id}{there}", file=sys.stderr)
        raise
    except ClusterError:
        if not _is_there(client, id):  # the answer may have got lost, and not the job
            raise
    console.print(id if no_wait else f"job {id} on {client.address}", markup=False)
    if no_wait:
        return
    try:
        state = _followed(client, id)
    except KeyboardInterrupt:
        console.print(f"the job goes on: colorize jobs log {id}{there}, colorize jobs stop {id}{there}", markup=False)
        raise
    _conclude(state)


@app.callback()
def jobs(
    context: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    address: Annotated[str | None, SERVER] = None,
) -> None:
    """List the jobs of a cluster, the newest first."""
    from colorize.cli.display import console, duration
    from colorize.submit.jobs import JobClient

    if context.invoked_subcommand is not None:
        if json:
            raise ConfigError(f"--json: is of the list of jobs, and not of {context.invoked_subcommand}")
        context.obj = address
        return
    found = JobClient(address).list()
    if json:
        print(json_module.dumps([dataclasses.asdict(job) for job in found], indent=2))
        return
    for job in found:
        took = "" if job.started is None else duration((job.ended or time.time()) - job.started)
        console.print(f"{job.id}  {job.status}  {took}  {job.command}", markup=False)
    if not found:
        console.print("no jobs")


@app.command()
def log(
    context: typer.Context,
    id: Annotated[str, JOB],
    address: Annotated[str | None, SERVER] = None,
) -> None:
    """Print a job's log, and follow it until the job ends; the exit code is that of `colorize submit`."""
    from colorize.submit.jobs import JobClient

    _conclude(_followed(JobClient(address or context.obj), id))


@app.command()
def stop(
    context: typer.Context,
    id: Annotated[str, JOB],
    address: Annotated[str | None, SERVER] = None,
) -> None:
    """Stop a job. What it has finished is kept: the same command again does the rest."""
    from colorize.cli.display import console
    from colorize.submit.jobs import JobClient
    from colorize.submit.submission import STOP_SECONDS

    client = JobClient(address or context.obj)
    state = client.state(id)
    if state.is_over:
        console.print(f"job {id} is over: {state.status}", markup=False)
        return
    client.stop(id)
    console.print(f"job {id} is to end within {STOP_SECONDS} s; what it has done is kept", markup=False)


def _is_there(client: JobClient, id: str) -> bool:
    try:
        client.state(id)
    except ClusterError:
        return False
    return True


def _followed(client: JobClient, id: str) -> JobState:
    """Prints a job's log until its end, and gives how it ended."""
    for line in client.follow(id):
        print(line, flush=True)
    deadline = time.monotonic() + ENDING_SECONDS
    while not (state := client.state(id)).is_over:
        if time.monotonic() > deadline:
            raise ClusterError(f"{id}: its log has ended, and the cluster says that it is {state.status}: colorize jobs log {id}")
        time.sleep(0.2)
    return state


def _conclude(state: JobState) -> None:
    from colorize.cli.display import console, duration

    took = f" after {duration(state.ended - state.started)}" if state.ended and state.started else ""
    console.print(f"job {state.id} {state.status}{took}", markup=False)
    if state.status == "FAILED":
        print(f"colorize: {state.id}: {state.message}", file=sys.stderr)
    if state.status != "SUCCEEDED":
        raise typer.Exit(STOPPED if state.status == "STOPPED" else 1)
