"""The file of the schedules: an SQLite database of this program's own, made or opened, its transactions, and what goes wrong with it.

Knows nothing of what its rows mean.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from colorize.errors import ScheduleError, one_line

VERSION = 1

BUSY_SECONDS = 15.0

_TABLES = """
CREATE TABLE identity (word TEXT NOT NULL);
CREATE TABLE schedules (
    name TEXT PRIMARY KEY, cron TEXT NOT NULL, timezone TEXT NOT NULL, command TEXT NOT NULL, missed TEXT NOT NULL, overlap TEXT NOT NULL,
    retries INTEGER NOT NULL, retry_seconds REAL NOT NULL, paused INTEGER NOT NULL, planned_until REAL NOT NULL
);
CREATE TABLE runs (
    name TEXT NOT NULL, due INTEGER NOT NULL, by_hand INTEGER NOT NULL, state TEXT NOT NULL, attempt INTEGER NOT NULL,
    next_try REAL NOT NULL, command TEXT NOT NULL, retries INTEGER NOT NULL, retry_seconds REAL NOT NULL, withdrawn INTEGER NOT NULL,
    started REAL, ended REAL, message TEXT NOT NULL, PRIMARY KEY (name, due)
);
CREATE INDEX open_runs ON runs (state) WHERE state IN ('planned', 'submitted', 'running', 'waiting');
CREATE TABLE attempts (
    name TEXT NOT NULL, due INTEGER NOT NULL, number INTEGER NOT NULL, job TEXT NOT NULL, started REAL NOT NULL, ended REAL,
    status TEXT NOT NULL, message TEXT NOT NULL, PRIMARY KEY (name, due, number)
);
"""


class Database:
    """An open one. A context manager; one thread at a time uses it: the command's own, or the scheduler's worker."""

    def __init__(self, path: Path) -> None:
        """Opens the file, or makes one. Raises ScheduleError where that cannot be."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)  # commands may hold names that are nobody's business
            self._file = os.fstat(file)
            os.close(file)
        except OSError as error:
            raise ScheduleError(f"{path}: cannot be used as the store of schedules: {error.strerror}") from error
        with self._told():
            self._database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        self._database.row_factory = sqlite3.Row
        self._database.text_factory = _text
        try:
            with self._told():
                self._is_new()  # before the first change, so that another program's file stays as it is
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = FULL")  # what is written stays written through a power cut
                self._prepare()
                identity = self._database.execute("SELECT word FROM identity").fetchone()
            if identity is None or not isinstance(identity["word"], str):
                told = "empty" if identity is None else "no text"
                raise ScheduleError(f"{path}: is damaged: its table identity is {told}, by which its jobs are known; use another --store")
            self._word = identity["word"]
        except ScheduleError:
            self.close()
            raise

    def close(self) -> None:
        self._database.close()

    def is_gone(self) -> bool:
        """Whether another file stands in its place by now, or none: what others write there is not seen here."""
        try:
            return not os.path.samestat(self.path.stat(), self._file)
        except FileNotFoundError:
            return True
        except OSError:  # of a disk that does not answer, say: it may come back
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_new(self) -> bool:
        """Whether nothing is in the file yet. Raises ScheduleError where it is no store of this version's."""
        # One query, one moment: between two of them another process may make the tables.
        version, tables = self._database.execute(
            "SELECT user_version, (SELECT count(*) FROM sqlite_master) FROM pragma_user_version"
        ).fetchone()
        if version == 0 and not tables:
            return True
        if version != VERSION:
            newer = "of a newer colorize" if version > VERSION else "of another program"
            raise ScheduleError(f"{self.path}: is a database {newer}, not a store of schedules that this one reads")
        return False

    def _prepare(self) -> None:
        with self._transaction():
            if self._is_new():
                for statement in _TABLES.split(";"):
                    self._database.execute(statement)
                self._database.execute("INSERT INTO identity VALUES (?)", (secrets.token_hex(4),))
                self._database.execute(f"PRAGMA user_version = {VERSION}")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """What SQLite says as an error of one line."""
        try:
            yield
        except sqlite3.IntegrityError:  # the tables' own promises: a fault of this program
            raise
        except UnicodeEncodeError as error:  # bytes of a command line that are no text
            raise ScheduleError(f"{one_line(error.object)}: is not UTF-8: no schedule has such a name") from error
        except sqlite3.DatabaseError as error:
            raise ScheduleError(f"{self.path}: cannot be used as the store of schedules: {error}") from error


def _text(stored: bytes) -> str | bytes:
    """What a column of text holds. What is damaged so far that it is no text stays bytes: its row is unreadable then, and no other."""
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored
