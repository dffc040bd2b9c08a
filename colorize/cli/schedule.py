"""`colorize schedule …`: commands that are due by the clock, and the process that starts them as Ray jobs."""

from __future__ import annotations

import dataclasses
import json as json_module
import os
import shlex
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colorize.cli.places import COMMANDS, parse
from colorize.errors import ClusterError, ConfigError, ScheduleError, one_line, printable
from colorize.schedule.plan import DUE

if TYPE_CHECKING:
    from colorize.schedule.plan import Attempt, Damaged, Run, Schedule
    from colorize.schedule.runner import Jobs
    from colorize.schedule.store import Store

STORE = typer.Option(metavar="FILE", help="The store of schedules.", show_default="schedule.sqlite in ~/.local/state/colorize")
NAME = typer.Argument(help="The schedule's name.", show_default=False)
ADDRESS = typer.Option(help="The cluster's job server (http://host:8265, host:port, auto); without it RAY_ADDRESS, else this machine's.")
JSON = typer.Option("--json", help="Print JSON.")

LOOK_SECONDS = (1.0, 10.0)
"""How soon `run` looks again while it waits for Ray or for a retry: at the soonest, and at the latest."""

WAIT_SECONDS = 90.0
"""How long `remove --stop` waits for the end of a job, which has a minute to keep what it has."""

app = typer.Typer(help="Run commands by the clock, as Ray jobs.", no_args_is_help=True)


@app.command()
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Small letters, digits, - and _.", show_default=False)],
    command: Annotated[
        list[str],
        typer.Argument(metavar="-- COMMAND…", help=f"One of {', '.join(COMMANDS)}, with its options.", show_default=False),
    ],
    cron: Annotated[str, typer.Option(help="When: five fields of cron, as '0 2 * * *', or @daily and the like.", show_default=False)],
    timezone: Annotated[
        str | None, typer.Option(help="Of the cron line, as Europe/Berlin.", show_default="this machine's, as it is now")
    ] = None,
    missed: Annotated[str, typer.Option(help="Due times while no scheduler ran: run (the last of them) or skip.")] = "run",
    overlap: Annotated[str, typer.Option(help="A due time while the run before is not over: skip, or wait (the last of them).")] = "skip",
    retries: Annotated[int, typer.Option(help="How often a run that fails is tried again.")] = 0,
    retry_delay: Annotated[float, typer.Option(help="Seconds before the first retry; twice as long before each further one.")] = 60.0,
    store: Annotated[Path | None, STORE] = None,
) -> None:
    """Schedule a command. It is run by `colorize schedule start`, as a job of a Ray cluster.

    The command is checked now; relative paths become absolute, and every node must see them. {due} in it becomes the time of the run: a
    training needs it in --run, since each needs a new directory.
    """
    from colorize.cli.display import console
    from colorize.schedule.plan import Schedule, shown

    words = checked(command, context)
    schedule = Schedule(
        name=name, cron=cron, timezone=_local_timezone() if timezone is None else timezone, command=words, retries=retries,
        retry_seconds=retry_delay, missed=missed, overlap=overlap,  # type: ignore[arg-type]
    )  # fmt: skip
    now = time.time()
    with _open(store, make=True) as opened:
        opened.add(schedule, now)
    due = schedule.due.following(now)
    assert due is not None, "a cron line that is never due is refused"
    console.print(f"{name}: due {shown(due, schedule.timezone)} for the first time ({schedule.timezone})", markup=False)


@app.command("list")
def list_(json: Annotated[bool, JSON] = False, store: Annotated[Path | None, STORE] = None) -> None:
    """List the schedules: when each is due next, and what became of its last run."""
    from colorize.cli.display import console
    from colorize.schedule.plan import shown

    now = time.time()
    with _open(store) as opened:
        unreadable = opened.unreadable()
        schedules = [schedule for schedule in opened.schedules() if schedule.name not in unreadable]
        found = [(schedule, _last(opened, schedule.name)) for schedule in schedules]
    due = {schedule.name: None if schedule.paused else schedule.due.following(now) for schedule, _ in found}
    if json:
        told = [
            _told(schedule) | {"next_due": due[schedule.name], "last": None if last is None else {"due": last.due, "state": last.state}}
            for schedule, last in found
        ]
        print(json_module.dumps([*told, *({"name": name, "unreadable": why} for name, why in unreadable.items())]))
        return
    if not found and not unreadable:
        console.print("no schedules")
        return
    lines = [("name", "cron", "next", "last", "command")]
    for schedule, last in found:
        at = due[schedule.name]
        lines.append(
            (schedule.name, schedule.cron, "paused" if at is None else shown(at, schedule.timezone),
             "" if last is None else f"{last.state} ({shown(last.due, schedule.timezone)})", shlex.join(schedule.command))
        )  # fmt: skip
    _print_columns([*lines, *((name, "", "unreadable", "", why) for name, why in unreadable.items())])


@app.command()
def start(
    address: Annotated[str | None, ADDRESS] = None,
    store: Annotated[Path | None, STORE] = None,
) -> None:
    """Run the schedules, until Ctrl-C or SIGTERM: the scheduler process. Jobs go on without it, and are found again by the next one.

    One line for each event. A Ray that does not answer is asked again, later and later, and nothing is lost by it.
    """
    from colorize.schedule.process import keep

    keep(_path(store), lambda: _jobs(address))


@app.command()
def run(
    name: Annotated[str, NAME],
    address: Annotated[str | None, ADDRESS] = None,
    store: Annotated[Path | None, STORE] = None,
) -> None:
    """Run a schedule's command now, show its log, and end as it ends: 0 where it succeeded.

    It counts as a run of the schedule, and has the same retries. While another one is not over it begins none, and takes that one to its
    end.
    """
    from colorize.cli.display import console
    from colorize.schedule.plan import shown
    from colorize.schedule.runner import Runner

    with _open(store) as opened:
        timezone = opened.schedule(name).timezone
        jobs = _jobs(address)
        runner = Runner(opened, lambda: _jobs(address), _print_event)
        runner.advance(time.time(), name)  # what the store takes for going on may be over
        if under_way := opened.open_runs(name):
            now = under_way[0]
            console.print(f"goes on with the run of {shown(now.due, timezone)} ({now.state})", markup=False)
        else:
            now = opened.begin(name, time.time())
        try:
            while not now.is_over:
                runner.advance(time.time(), name)
                now = opened.run(name, now.due)
                if now.state in ("submitted", "running"):
                    _follow(jobs, opened.job_id(now))
                    runner.advance(time.time(), name)
                    now = opened.run(name, now.due)
                if not now.is_over:
                    time.sleep(min(LOOK_SECONDS[1], max(LOOK_SECONDS[0], now.next_try - time.time())))
        except KeyboardInterrupt:
            now = opened.run(name, now.due)
            if now.state in ("submitted", "running"):
                console.print(f"the job goes on: {opened.job_id(now)}", markup=False)
            elif not now.is_over:
                again = f"colorize schedule start, or by the next colorize schedule run {name}"
                console.print(f"its attempt {now.attempt} is started by {again}", markup=False)
            raise
    if now.state != "succeeded":
        raise ScheduleError(f"schedule {name}: {now.state}: {now.message}".rstrip(": "))


@app.command()
def pause(name: Annotated[str, NAME], store: Annotated[Path | None, STORE] = None) -> None:
    """Leave a schedule's due times out until `resume`. A run that is under way goes on."""
    _pause(name, True, store)


@app.command()
def resume(name: Annotated[str, NAME], store: Annotated[Path | None, STORE] = None) -> None:
    """Take a paused schedule up again. What was due meanwhile is not made up for."""
    _pause(name, False, store)


@app.command()
def remove(
    name: Annotated[str, NAME],
    stop: Annotated[bool, typer.Option("--stop", help="Also end its job, where one is under way.")] = False,
    address: Annotated[str | None, ADDRESS] = None,
    store: Annotated[Path | None, STORE] = None,
) -> None:
    """Remove a schedule. Its history stays; a job that is under way goes on, unless --stop says otherwise."""
    from colorize.cli.display import console
    from colorize.schedule.runner import Runner

    if address is not None and not stop:
        raise ConfigError(f"--address {address}: is only used with --stop")
    with _open(store) as opened:
        runner = Runner(opened, lambda: _jobs(address), _print_event)
        if stop and opened.open_runs(name):
            _jobs(address)  # before anything is changed: whether it answers
        left = opened.remove(name, time.time())
        console.print(f"{name}: removed; its history stays", markup=False)
        for one in left:
            if stop:
                runner.stop(one)
            elif one.state != "planned":
                console.print(f"its job goes on: {opened.job_id(one)}", markup=False)
        deadline = time.monotonic() + WAIT_SECONDS
        while stop and opened.open_runs(name) and time.monotonic() < deadline:
            runner.advance(time.time(), name)
            time.sleep(1)
        if stop and opened.open_runs(name):
            raise ClusterError(f"schedule {name}: its job was told to end and has not yet; colorize schedule history {name} says when")


@app.command()
def history(
    name: Annotated[str | None, typer.Argument(help="One schedule, also one that was removed.", show_default="all")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many runs at most, the latest.")] = 30,
    json: Annotated[bool, JSON] = False,
    store: Annotated[Path | None, STORE] = None,
) -> None:
    """Say what became of every due time: started, skipped (why), succeeded, failed (why), and its jobs."""
    from colorize.cli.display import console, duration
    from colorize.schedule.plan import Damaged, shown

    with _open(store) as opened:
        zones = {schedule.name: schedule.timezone for schedule in opened.schedules()}
        runs = opened.told(name, limit)
        if name is not None and not runs:
            opened.schedule(name)
    if json:
        print(json_module.dumps([_told_run(one, jobs) for one, jobs in runs]))
        return
    if not runs:
        console.print("no runs")
        return
    lines = [("due", "name", "state", "took", "jobs", "last job", "reason")]
    for one, jobs in runs:
        if isinstance(one, Damaged):
            lines.append((one.due, one.name, "unreadable", "", "", "", one.why))
            continue
        took = "" if one.started is None or one.ended is None else duration(one.ended - one.started)
        due = shown(one.due, zones.get(one.name, "UTC")) + (" (by hand)" if one.by_hand else "")
        lines.append((due, one.name, one.state, took, str(len(jobs)), jobs[-1].job if jobs else "", one.message))
    _print_columns(lines)


def checked(command: list[str], context: typer.Context | None = None) -> tuple[str, ...]:
    """A command as it is to be stored: parsed by its own rules, with absolute paths.

    Raises ConfigError where it cannot be a job, or could be one only once, and what its own parser raises.
    """
    if {"-h", "--help"} & set(command):
        raise ConfigError(f"{printable(shlex.join(command))}: only prints something; there is nothing to schedule")
    parsed = parse(command, folder=Path.cwd(), context=context)
    if "--dry-run" in parsed.arguments:
        raise ConfigError("--dry-run: writes nothing; there is nothing to schedule")
    if parsed.address is not None:
        raise ConfigError(f"--address {parsed.address}: belongs to colorize schedule start; a job runs on the cluster that it is given to")
    if "--run" in parsed.arguments and DUE not in (directory := parsed.arguments[parsed.arguments.index("--run") + 1]):
        raise ConfigError(f"--run {directory}: is there already at the second run: put {DUE} into it, as in --run /runs/{DUE}")
    return parsed.arguments


def _local_timezone() -> str:
    """The name of this machine's time zone, kept with the schedule: it stays where it is when the machine moves."""
    from tzlocal import get_localzone_name

    from colorize.schedule.plan import zone_of

    given = os.environ.get("TZ")
    name = (given or "").removeprefix(":")
    if not name and given is not None:
        name = "UTC"  # as C takes it
    elif name.startswith("/") and not _is_there(Path(name)):
        raise ScheduleError(f"TZ={given}: there is no such file: give a time zone with --timezone")
    elif not name or name.startswith("/"):
        try:
            name = get_localzone_name() or "UTC"
        except (LookupError, ValueError, OSError) as error:
            raise ScheduleError(f"this machine's time zone is not known ({one_line(error)}): give one with --timezone") from error
    try:
        zone = zone_of(name)
    except ScheduleError as error:  # TZ is a rule, as CET-1CEST, say, or a slip, which C takes for UTC without a word
        where = "this machine's time zone" if given is None else f"TZ={given}"
        raise ScheduleError(f"{where}: {error}, with --timezone") from error
    for month in range(12):  # two that are the same now may differ in summer
        at = datetime.now(UTC) + timedelta(days=30 * month)
        if at.astimezone(zone).utcoffset() != at.astimezone().utcoffset():
            raise ScheduleError(
                f"this machine's clocks go by {at.astimezone():UTC%z} on {at:%Y-%m-%d}, and not by {name}, its time zone: give one with "
                "--timezone"
            )
    return name


def _path(store: Path | None) -> Path:
    from colorize.schedule.store import default_path

    return default_path() if store is None else store.absolute()


def _open(store: Path | None, *, make: bool = False) -> Store:
    """`make`: whether a file that was named may be a new one; a store where nobody said is made as needed."""
    from colorize.schedule.store import Store

    if store is not None and not make and not _is_there(store):
        raise ScheduleError(f"{store}: there is no such store of schedules; `colorize schedule add` makes one")
    return Store(_path(store))


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise ScheduleError(f"{path}: cannot be looked for: {error.strerror}") from error


def _jobs(address: str | None) -> Jobs:
    from colorize.submit.jobs import JobClient

    return JobClient(address)


def _last(store: Store, name: str) -> Run | None:
    """The last run of a schedule, where there is one that can be read; `history` says what is damaged."""
    return next(iter(store.history(name, 1)), None)


def _pause(name: str, paused: bool, store: Path | None) -> None:
    from colorize.cli.display import console

    with _open(store) as opened:
        changed = opened.pause(name, paused, time.time())
    console.print(f"{name}: {'' if changed else 'already '}{'paused' if paused else 'no longer paused'}", markup=False)


def _print_columns(lines: Sequence[tuple[str, ...]]) -> None:
    """A line each, with the cells below one another, on a terminal of any width as in a file."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print(printable("   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()))


def _follow(jobs: Jobs, job: str) -> None:
    """Prints a job's log until its end, or as long as Ray answers."""
    try:
        for line in jobs.follow(job):
            print(line, flush=True)
    except ClusterError as error:
        _print_event("log", reason=str(error))


def _print_event(event: str, **particulars: object) -> None:
    from colorize.cli.display import console

    told = " ".join(f"{printable(str(value))}" for name, value in particulars.items() if name in ("job", "reason", "again_in"))
    console.print(f"{event.replace('_', ' ')} {told}".rstrip(), markup=False)


def _told(one: Schedule | Run) -> dict[str, Any]:
    return dataclasses.asdict(one) | {"command": list(one.command)}


def _told_run(one: Run | Damaged, jobs: Sequence[Attempt]) -> dict[str, Any]:
    from colorize.schedule.plan import Run

    if not isinstance(one, Run):
        return {"name": one.name, "due": one.due, "unreadable": one.why}
    return _told(one) | {"attempts": [dataclasses.asdict(attempt) for attempt in jobs]}
