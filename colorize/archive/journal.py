"""The journal of one run, `TARGET/_colorize/runs/RUN_ID`: what makes a run that was killed at any moment a run that lost nothing.

Knows nothing of Ray or of colours. Workers hand over outputs in small groups:

    outputs, staged and on the disk ─▶ PART.intent (their rows) ─▶ outputs into the target ─▶ PART.done (their rows)

So no file is in the target that no row tells of. Whoever finds the folder of a dead run takes the rows of its `.done` parts as they are,
and those of its `.intent` parts (at most one a worker) where the output has the digest that the row says. Everything else is done again.
A block that a worker has begun has a mark there, so that a picture which takes its whole process with it is found out.
Once the driver has closed the journal no worker can put anything into the target any more: on a disk the folder is renamed, in which the
outputs are staged; in a bucket the file `open` goes, for which workers look before each group, so there a group may still come through.
Costs a group of 16 pictures 3 ms on a local disk, beside the outputs' own fsyncs; in a bucket five requests.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
import uuid
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NoReturn

import pyarrow as pa

from colorize.archive.manifest import FOLDER, SCHEMA, Row, to_rows, to_table
from colorize.errors import ArchiveError
from colorize.storage.place import LocalPlace, Place, cause, lock

RUNS = f"{FOLDER}/runs"
CLOSED = ".closed"

ALTERED = "its output in the target is not as this program left it; it is left as it is"
APPEARED = "its target appeared during the run; it is left as it is"

STALE_SECONDS = 300
"""In a bucket, a run on another machine counts as dead when its driver has not been heard of for so long."""

HEARTBEAT_SECONDS = 60

_HOPELESS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOTCONN, errno.ESTALE}


class StopRunError(ArchiveError):
    """No further picture can be written: the disk is full, the target is gone, or another run has taken over."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """A coloured file that is staged and waits for its place in the target."""

    rows: list[Row]
    """One a page."""
    staged: Path
    replaces: str | None
    """The digest of the file that it may replace."""

    @property
    def path(self) -> str:
        path = self.rows[0].target_path
        assert path is not None, "an output has a place"
        return path


class Journal:
    """One run's journal, seen by its driver and by its workers."""

    def __init__(self, target: Place, run_id: str) -> None:
        self._target = target
        self.folder = f"{RUNS}/{run_id}"
        self._lock: int | None = None
        self._heard = 0.0

    # The driver

    def open(self) -> None:
        """Makes the folder, and takes the target for this run alone. Raises ArchiveError when that cannot be done."""
        try:
            self._take_lock()
            self._target.write(f"{self.folder}/open", json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())
            self._heard = time.monotonic()
        except OSError as error:
            self._give_lock()
            raise ArchiveError(f"{self._target.shown}: cannot be written ({cause(error)}): give another target") from error
        if not isinstance(self._target, LocalPlace):
            try:
                self._check_alone()
            except ArchiveError:
                self.remove()
                raise

    def heartbeat(self) -> None:
        """In a bucket: says every minute that this run is alive."""
        if not isinstance(self._target, LocalPlace) and time.monotonic() - self._heard >= HEARTBEAT_SECONDS:
            self._heard = time.monotonic()
            with suppress(OSError):
                self._target.write(f"{self.folder}/open", json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())

    def close(self) -> None:
        """Ends the workers' hold on the target."""
        if self.folder.endswith(CLOSED):  # by a driver that died later
            return
        with suppress(OSError):  # the target is gone; writing the manifest will say so
            if self._target.rename(self.folder, self.folder + CLOSED):
                self.folder += CLOSED
            else:
                self._target.remove(f"{self.folder}/open")

    def rows(self, blocks: Container[str] | None = None) -> dict[str, list[Row]]:
        """The rows that the journal knows and that are proven, by path; of all blocks, or of those named.

        Raises OSError when it cannot be read: then nobody knows yet what it holds.
        """
        names = self._target.names(self.folder)
        return dict(self._proven(name for name in names if blocks is None or name.partition("-")[0] in blocks))

    def remove(self) -> None:
        """Removes the folder, when its rows are in the manifest, and gives the target free."""
        with suppress(OSError):
            self._target.remove(self.folder)
            if not self._target.names(RUNS):
                self._target.remove(RUNS)
        self._give_lock()

    def release(self) -> None:
        """Gives the target free and leaves the folder to the next run."""
        self._give_lock()

    # The workers

    def begin(self, key: str) -> int:
        """Marks something as under way; gives how often it has been begun, this time included."""
        path = f"{self.folder}/begun-{key}"
        try:
            if isinstance(self._target, LocalPlace):
                with (self._target.root / path).open("ab") as file:
                    file.write(b".")
                    return file.tell()
            before = self._target.look(path)
            count = (before.size or 0) + 1 if before else 1
            self._target.write(path, b"." * count)
        except OSError:
            return 1  # closed or full: `commit` will fail, and say why
        return count

    def stage(self) -> Path:
        """The name of a new file for an output."""
        return self._target.scratch(self.folder) / uuid.uuid4().hex

    def discard(self, staged: Path) -> None:
        """Gives up what was to become an output."""
        self._target.discard(staged)

    def commit(self, part: str, group: list[Output | Row]) -> list[Row]:
        """Puts a group's outputs into the target, each whole or not at all; gives all rows of the group, in order.

        An output whose place is taken by something else becomes a skipped row, one that cannot be written a failed one.
        Raises StopRunError when nothing can be written any more; what is staged is given up then.
        """
        try:
            return self._commit(part, group)
        except StopRunError:
            with suppress(OSError):  # a disk that is gone, with all that was on it
                for one in group:
                    if isinstance(one, Output):
                        self.discard(one.staged)
            raise

    def _commit(self, part: str, group: list[Output | Row]) -> list[Row]:
        intended = [row for one in group for row in ([one] if isinstance(one, Row) else one.rows)]
        try:
            if not self._is_open():
                self._stop("the run is over, or another one has taken over")
            self._write(f"{part}.intent", _ipc(intended))
        except OSError as error:
            self._stop(cause(error), error)
        done: list[Row] = []
        for one in group:
            done += [one] if isinstance(one, Row) else self._put(one)
        with suppress(OSError):  # the intent is there, which will do
            self._write(f"{part}.done", _ipc(done))
            self._target.remove(f"{self.folder}/{part}.intent")
        return done

    def recall(self, block: str) -> dict[str, list[Row]]:
        """What an earlier worker got done of a block before it died. Raises StopRunError when it cannot be read."""
        try:
            return self.rows({block})
        except OSError as error:
            self._stop(cause(error), error)

    def check(self, error: OSError) -> None:
        """Raises StopRunError when an error that one file met will meet every other one."""
        if error.errno in _HOPELESS or not self._is_open():
            self._stop(cause(error), error)
        probe = f"probe-{uuid.uuid4().hex}"
        try:
            self._write(probe, b"\0" * 4096)
            self._target.remove(f"{self.folder}/{probe}")
        except OSError as again:
            self._stop(cause(again), again)

    def _put(self, output: Output) -> list[Row]:
        began = time.perf_counter()
        try:
            there = self._target.look(output.path)
            mine = output.replaces is not None and there is not None and self._sha256(output.path) == output.replaces
            self._target.put(output.staged, output.path, replace=mine)
        except FileExistsError:
            self.discard(output.staged)
            if self._sha256(output.path) != output.rows[0].target_sha256:  # else a worker put it there that died before it could say so
                reason = ALTERED if output.replaces is not None else APPEARED
                return [_without_output(row, status="skipped", reason=reason, stands=output.replaces) for row in output.rows]
        except OSError as error:
            self.discard(output.staged)
            self.check(error)
            reason = f"the target cannot be written: {cause(error)}"
            return [_without_output(row, status="failed", reason=reason, stands=output.replaces) for row in output.rows]
        first, *others = output.rows
        return [replace(first, seconds_write=(first.seconds_write or 0) + time.perf_counter() - began), *others]

    def _write(self, name: str, data: bytes) -> None:
        """Never makes the folder: the driver may just have closed it."""
        self._target.write(f"{self.folder}/{name}", data, make_folder=False)

    def _sha256(self, path: str) -> str | None:
        found = self._target.look(path)
        return None if found is None or found.size is None else self._target.sha256(path)

    def _is_open(self) -> bool:
        return self._target.look(f"{self.folder}/open") is not None

    def _stop(self, reason: str, error: OSError | None = None) -> NoReturn:
        raise StopRunError(f"{self._target.shown}: cannot be written ({reason})") from error

    def _proven(self, names: Iterable[str]) -> Iterator[tuple[str, list[Row]]]:
        """(path, its rows) of parts: as they are where they are done; where they are intended, if the output is there as they say."""
        names = set(names)
        for name in sorted(names):
            part, _, kind = name.rpartition(".")
            if kind not in ("intent", "done") or (kind == "intent" and f"{part}.done" in names):
                continue
            rows = self._part(name)
            for path in dict.fromkeys(row.path for row in rows):
                its = [row for row in rows if row.path == path]
                if its[0].status == "coloured":
                    if kind == "intent" and self._sha256(its[0].target_path or path) != its[0].target_sha256:
                        continue
                elif its[0].status not in ("failed", "skipped"):
                    continue
                yield path, its

    def _part(self, name: str) -> list[Row]:
        try:
            data = self._target.read(f"{self.folder}/{name}")
        except FileNotFoundError:  # its run is under way, and has done it since
            part, _, kind = name.rpartition(".")
            return self._part(f"{part}.done") if kind == "intent" else []
        try:
            with pa.ipc.open_stream(data) as reader:
                return to_rows(reader.read_all().cast(SCHEMA))
        except (OSError, ValueError, pa.ArrowException):  # cut by a power failure, or of another version: done again
            return []

    # One run at a time

    def _take_lock(self) -> None:
        if not isinstance(self._target, LocalPlace):
            return
        folder = self._target.root / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        if not lock(self._lock):
            self._give_lock()
            raise ArchiveError(f"{self._target.shown}: another run is writing there: wait until it has ended")

    def _give_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _check_alone(self) -> None:
        """A bucket has no locks: another run's `open` file that is young, or whose process on this machine lives, is in the way."""
        mine = self._target.look(f"{self.folder}/open")
        for other in self._target.names(RUNS):
            path = f"{RUNS}/{other}/open"
            theirs = self._target.look(path)
            if theirs is None or path == f"{self.folder}/open":
                continue
            try:
                told = json.loads(self._target.read(path))
                alive = _is_alive(int(told["pid"])) if told["host"] == socket.gethostname() else None
            except (OSError, ValueError, KeyError, TypeError):
                alive = None
            age = ((mine.modified or 0) - (theirs.modified or 0)) / 1e9 if mine else STALE_SECONDS
            if alive or (alive is None and age < STALE_SECONDS):
                wait = "wait until it has ended" if alive else f"if it is dead, the same command goes on in {STALE_SECONDS - age:.0f} s"
                raise ArchiveError(f"{self._target.shown}: another run ({other}) is writing there: {wait}")


def unfinished(target: Place, but: str | None = None) -> list[Journal]:
    """The journals of runs that never came to their end, the oldest first; `but` is left out."""
    return [Journal(target, name) for name in target.names(RUNS) if name != but]


def _without_output(row: Row, *, status: Literal["skipped", "failed"], reason: str, stands: str | None) -> Row:
    """The row of a picture whose output did not come into the target; `stands`: the digest of an earlier run's, as that left it."""
    return replace(
        row, status=status, reason=reason, target_bytes=None, target_sha256=stands, thumbnail=None,
        model=None, model_sha256=None, vividness=None, mean_confidence=None, colorfulness=None,
    )  # fmt: skip


def _ipc(rows: list[Row]) -> bytes:
    table = to_table(rows)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
