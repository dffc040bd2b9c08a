"""A bulk run as a whole: what is checked before it starts, the Ray Data job, and the manifest it leaves.

    tasks ──from_arrow──▶ map_batches(Painter, actor pool) ──iter_batches──▶ rows ──▶ TARGET/_colorize/manifest/current.parquet

`prepare` needs no Ray and writes nothing, so a wrong command says so at once, and `--dry-run` is `prepare` alone. `carry_out` streams: the
paths of a block go to a worker, its rows come back. Neither pixels nor file contents pass through the driver or the object store, so their
memory grows with the archive by a kilobyte a file only: its listing and the manifest's rows.
However the run ends, its journal is closed first: no worker can put anything into the target any more. What the driver has not heard of is
read from there, and the manifest is swapped. A driver that was killed leaves its journal to the next run, which does the same.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
from ray.data import ActorPoolStrategy

from colorize import cluster, log
from colorize.archive import manifest, report
from colorize.archive.config import ArchiveConfig
from colorize.archive.journal import Journal, unfinished
from colorize.archive.listing import Listing, check_places, list_archive
from colorize.archive.manifest import Row, to_rows, to_table
from colorize.archive.meter import STAGE
from colorize.archive.painter import Order, Painter, to_block
from colorize.archive.plan import Task, Work, plan_work
from colorize.archive.summary import ArchiveSummary, Progress, Tally, breaking_off
from colorize.errors import ArchiveError
from colorize.model.card import ModelCard, read_card, resolve
from colorize.model.colormodel import load_model
from colorize.model.device import GPU_SHARE
from colorize.model.settings import DecodeSettings
from colorize.storage.place import LocalPlace, Place, cause
from colorize.storage.remote import open_place

BLOCK_PICTURES = 64
BLOCK_BYTES = 16_000_000
"""A block of work ends at whichever comes first: large enough for Ray's 10 ms a block not to count, small enough to share out evenly."""

PARTS_A_WORKER = 4
"""A block is at most one of so many parts, for each worker, of what is left: twice what Ray hands a worker ahead."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run that can start."""

    config: ArchiveConfig
    source: Place
    target: Place
    """Local ones absolute, without symbolic links."""
    source_identity: str | None
    model: Path
    """The model's file."""
    settings: DecodeSettings
    """With the palette or the reference, read."""
    card: ModelCard
    run_id: str
    listing: Listing
    manifest_version: str
    """`manifest.version` when the plan was made."""
    current: pa.Table = field(default_factory=manifest.SCHEMA.empty_table)
    """The manifest as it is, with what killed runs have left of theirs."""
    superseded: pa.Table = field(default_factory=manifest.SCHEMA.empty_table)
    """The rows that those runs have superseded."""
    work: Work = field(default_factory=Work)
    began: float
    """`time.monotonic()` at the beginning of `prepare`."""


def colorize_archive(config: ArchiveConfig, *, on_progress: Callable[[Progress], None] | None = None) -> ArchiveSummary:
    """Colours all pictures of a source that its target lacks, or has of an older source, on the Ray that is connected.

    A picture that fails is a row of the manifest, and in the summary; it raises nothing. What this program did not write stays.
    `on_progress` is called on this thread after every block of pictures.

    Raises ArchiveError (source, target), ModelError, ConfigError (vividness, workers) and ClusterError (too few resources) before
    any picture is read; ArchiveError also when the run breaks off. However it ends, the manifest says what was done.
    """
    return carry_out(prepare(config), on_progress=on_progress)


def prepare(config: ArchiveConfig) -> Plan:
    """Checks, lists and plans all that a run needs, without Ray. Nothing is written. Raises ArchiveError, ModelError."""
    began = time.monotonic()
    source, target = check_places(open_place(config.source), open_place(config.target))
    model = resolve(config.model)
    load_model(model)
    run_id = f"{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:8]}"
    identity = source.identity()
    listing = list_archive(source, run_id)
    plan = Plan(
        config=config, source=source, target=target, source_identity=identity, model=model, settings=config.settings(),
        card=read_card(model), run_id=run_id,
        listing=listing, manifest_version=manifest.version(target), began=began,
    )  # fmt: skip
    return _planned(plan)


def carry_out(plan: Plan, *, on_progress: Callable[[Progress], None] | None = None) -> ArchiveSummary:
    """Runs what `prepare` planned; see `colorize_archive`. Ray is not used when there is nothing to colour."""
    log.bind(run=plan.run_id, stage=STAGE)
    log.event("run begins", source=plan.source.shown, target=plan.target.shown, pictures=len(plan.work.tasks))
    workers = _workers(plan.config) if plan.work.tasks else 0
    journal = Journal(plan.target, plan.run_id)
    journal.open()
    try:
        plan, older = _take_over(plan)
    except BaseException as error:  # nothing was done, and the manifest may have become another run's: this one has nothing to write
        log.event("run breaks off", level=logging.ERROR, reason=str(error) or type(error).__name__, done=0)
        journal.close()
        journal.remove()
        raise
    tally = Tally(total=len(plan.work.tasks), began=plan.began)
    blocks: list[list[Task]] = []
    try:
        if plan.work.tasks:
            workers = workers or _workers(plan.config)
            blocks = cut_into_blocks(plan.work.tasks, workers)
            _color(plan, blocks, workers, journal, tally, on_progress)
    except BaseException as error:
        log.event("run breaks off", level=logging.ERROR, reason=str(error) or type(error).__name__, done=tally.progress().done)
        journal.close()
        try:
            _settle(plan, blocks, journal, tally, older, is_whole=False)
        except ArchiveError as again:
            if not isinstance(error, ArchiveError):
                raise
            raise ArchiveError(f"{error}; {again}") from error
        raise
    journal.close()
    table = _settle(plan, blocks, journal, tally, older, is_whole=True)
    summary = _summary(plan, tally, table)
    log.event("run ends", coloured=summary.colored, failed=summary.failed, skipped=sum(summary.skipped.values()),
            megapixels=round(summary.megapixels, 3), seconds=round(summary.seconds, 3))  # fmt: skip
    return summary


def _take_over(plan: Plan) -> tuple[Plan, list[Journal]]:
    """The plan, made anew where a killed run has left something or another run has ended since; and the journals of killed runs, closed."""
    try:
        older = unfinished(plan.target, but=plan.run_id)
    except OSError as error:
        raise ArchiveError(f"{plan.target.shown}: cannot be looked up ({cause(error)})") from error
    for journal in older:
        journal.close()
    if older or manifest.version(plan.target) != plan.manifest_version:
        plan = _planned(replace(plan, manifest_version=manifest.version(plan.target)))
    return plan, older


def _planned(plan: Plan) -> Plan:
    """The plan with the manifest as it is now, with what killed runs have left of theirs, and the work that follows from it."""
    try:
        left = [rows for journal in unfinished(plan.target, but=plan.run_id) if (rows := journal.rows())]
        current, superseded = manifest.read_manifest(plan.target), manifest.SCHEMA.empty_table()
        for rows in left:
            current, gone = manifest.merge(current, [to_table([row for its in rows.values() for row in its])])
            superseded = pa.concat_tables([superseded, gone])
        work = plan_work(
            plan.listing, current, plan.target.sizes(), model_sha256=plan.card.weights_sha256, vividness=plan.settings.vividness,
            control=plan.settings.control, run_id=plan.run_id, force=plan.config.force, retry_failed=plan.config.retry_failed,
            recolor=plan.config.recolor, wanted=plan.config.format,
        )  # fmt: skip
    except OSError as error:
        raise ArchiveError(f"{plan.target.shown}: cannot be looked up ({cause(error)})") from error
    return replace(plan, current=current, superseded=superseded, work=work)


def _color(
    plan: Plan,
    blocks: list[list[Task]],
    workers: int,
    journal: Journal,
    tally: Tally,
    on_progress: Callable[[Progress], None] | None,
) -> None:
    """Runs the job; `tally` has every row that came back."""
    with breaking_off(plan.target, "the run", lambda: f"; {_so_far(tally)}"), closing(_paint(plan, blocks, workers)) as tables:
        for table in tables:
            if "stopped" in table["status"].to_pylist():
                raise ArchiveError(f"{table['reason'][0]}; {_so_far(tally)}")
            tally.add(table)
            journal.heartbeat()
            now = tally.progress()
            _say(now)
            if on_progress:
                on_progress(now)


def _say(now: Progress) -> None:
    """One line a block of pictures, and one a failure; people see both in another form."""
    for path, reason in now.new_failures:
        log.event("picture failed", level=logging.WARNING, path=path, reason=reason)
    log.event("pictures done", done=now.done, total=now.total, failed=now.failed)


def _so_far(tally: Tally) -> str:
    return f"{tally.progress().done:,} of {tally.total:,} pictures are done; the same command again does the rest"


def order_of(plan: Plan) -> Order:
    """What every worker of the run is told."""
    return Order(
        source=plan.source, target=plan.target, source_identity=plan.source_identity, run_id=plan.run_id,
        vividness=plan.settings.vividness, temperature=plan.settings.temperature, palette=plan.settings.palette,
        reference=plan.settings.reference, format=plan.config.format, recolor=plan.config.recolor,
        mark=plan.config.mark, confidence=plan.config.confidence, json_log=log.is_json(), planned=len(plan.work.tasks),
    )  # fmt: skip


def _paint(plan: Plan, blocks: list[list[Task]], workers: int) -> Generator[pa.Table, None, None]:
    """The rows of all pictures, a block at a time, as they are done."""
    order = order_of(plan)
    model = ray.put(plan.model.read_bytes())
    dataset = ray.data.from_arrow(to_tables(blocks)).map_batches(
        Painter,
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=min(workers, len(blocks)), max_tasks_in_flight_per_actor=2),
        fn_constructor_kwargs={"order": order, "model": model},
        num_cpus=1,
        num_gpus=GPU_SHARE if cluster.current().gpus else None,
    )
    yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


def _workers(config: ArchiveConfig) -> int:
    """How many workers; raises ClusterError when they do not fit, since Ray would wait for ever."""
    info = cluster.current()
    share = GPU_SHARE if info.gpus else 0
    room = min(info.cpus, int(info.gpus / share)) if share else info.cpus
    workers = config.workers or max(1, room)
    cluster.require(
        cpus=workers, gpus=workers * share, what=f"{workers} worker{'s' if workers > 1 else ''}", option="--workers", count=workers
    )
    return workers


def cut_into_blocks(tasks: list[Task], workers: int) -> list[list[Task]]:
    """The tasks in their order, cut into blocks of work, smaller ones towards the end.

    Each is a part of what is left, so that no worker waits long for the last block of another (guided self-scheduling: Polychronopoulos and
    Kuck, IEEE Transactions on Computers 36, 1987).
    """
    blocks: list[list[Task]] = [[]]
    size, most = 0, _most(len(tasks), workers)
    for done, task in enumerate(tasks):
        if blocks[-1] and (len(blocks[-1]) >= most or size + task.size > BLOCK_BYTES):
            blocks.append([])
            size, most = 0, _most(len(tasks) - done, workers)
        blocks[-1].append(task)
        size += task.size
    return blocks


def _most(left: int, workers: int) -> int:
    """The pictures of a block, where so many are left."""
    return max(1, min(BLOCK_PICTURES, left // (workers * PARTS_A_WORKER)))


def to_tables(blocks: list[list[Task]]) -> list[pa.Table]:
    """The blocks of a run as its workers take them."""
    return [to_block(_name(number), tasks) for number, tasks in enumerate(blocks)]


def _name(number: int) -> str:
    """A block's name, in its run's journal too."""
    return f"{number:06}"


def _settle(plan: Plan, blocks: list[list[Task]], journal: Journal, tally: Tally, older: list[Journal], *, is_whole: bool) -> pa.Table:
    """Swaps the manifest and writes the report; removes the journals when that is done, and leaves them to the next run when it cannot be.

    Raises ArchiveError when manifest or report cannot be written.
    """
    try:
        # Of the other blocks everything is known: to read the whole journal takes 1.6 s of 33,700 pictures, when a run is to stop.
        unheard = {_name(number) for number, tasks in enumerate(blocks) if any(task.path not in tally.seen for task in tasks)}
        if unheard:
            left = journal.rows(unheard)
            tally.add(to_table([row for path, rows in left.items() if path not in tally.seen for row in rows]))
        if is_whole:
            lost = [task.path for task in plan.work.tasks if task.path not in tally.seen]
            tally.add(to_table([Row(path=path, status="failed", reason="no result came back for it", run_id=plan.run_id) for path in lost]))
        new = [*_new_rows(plan, tally), to_table(plan.work.rows)]
        tally.tables.clear()
        table, superseded = manifest.merge(plan.current, new, plan.work.dropped)
        del new
        superseded = pa.concat_tables([plan.superseded, superseded])
        manifest.write_manifest(plan.target, table, superseded, plan.run_id)
        report.write_report(plan.target, table, plan.source, plan.run_id)
    except OSError as error:
        journal.release()
        raise ArchiveError(
            f"{plan.target.shown}: manifest and report cannot be written ({cause(error)}); the same command again makes them good"
        ) from error
    for one in [*older, journal]:
        one.remove()
    return table


def _new_rows(plan: Plan, tally: Tally) -> list[pa.Table]:
    """The rows that came back; those of pictures that were only touched are the old ones with their new size and time."""
    tables = []
    touched: dict[str, Row] = {}
    for table in tally.tables:
        is_touched = pc.equal(table["status"], "unchanged")
        if not pc.any(is_touched).as_py():
            tables.append(table)  # as it is: filtering would copy it
            continue
        tables.append(table.filter(pc.invert(is_touched)))
        touched |= {row.path: row for row in to_rows(table.filter(is_touched))}
    if touched:
        before = to_rows(plan.current.filter(pc.is_in(plan.current["path"], value_set=pa.array(list(touched), pa.string()))))
        tables.append(to_table([_touched(row, touched[row.path]) for row in before]))
    return tables


def _touched(row: Row, now: Row) -> Row:
    """The row of a picture whose source was only touched; a reason of a coloured one is that it had vanished, which is over."""
    return replace(row, source_modified=now.source_modified, reason=row.reason if row.status == "skipped" else None)


def _summary(plan: Plan, tally: Tally, table: pa.Table) -> ArchiveSummary:
    now = tally.progress()
    first = table.select(["path", "page", "status", "reason", "program_error"]).filter(pc.equal(table["page"], 0))
    others = first.filter(pc.is_in(first["status"], value_set=pa.array(["failed", "skipped"])))
    decided = {row.path for row in plan.work.rows}
    mine = [row for row in others.to_pylist() if row["path"] in tally.seen or row["path"] in decided]
    skipped = Counter(row["reason"] for row in mine if row["status"] == "skipped")
    failed = [row for row in mine if row["status"] == "failed"]
    return ArchiveSummary(
        run_id=plan.run_id, source=_path(plan.source), target=_path(plan.target), manifest=_join(plan.target, manifest.CURRENT),
        report=_join(plan.target, report.PAGE), inputs=first.num_rows, colored=now.colored, kept=plan.work.kept,
        skipped=dict(skipped.most_common()), failures=[(row["path"], row["reason"]) for row in failed],
        program_errors=sum(row["program_error"] for row in failed), megapixels=now.megapixels, seconds=time.monotonic() - plan.began,
        pictures_per_second=now.pictures_per_second,
    )  # fmt: skip


def _path(place: Place) -> Path:
    return place.root if isinstance(place, LocalPlace) else Path(place.shown)


def _join(place: Place, path: str) -> str:
    return str(place.root / path) if isinstance(place, LocalPlace) else f"{place.shown.rstrip('/')}/{path}"
