"""The staging folder of one run, `TARGET/_colorize/staging/RUN_ID`: where files are written before they are moved into place.

Knows nothing of Ray or of colours. It is also what driver and workers share when something dies:
- a picture that a worker has begun has a mark there, so one that takes the whole process with it is found out;
- a finished picture's row stays there until the driver has it, so a manifest knows every file that the run put into the target;
- once the driver has closed it, no worker can put anything into the target any more.
Marks and rows cost 0.3 ms a picture on a local disk, the file itself 1.2 ms with its fsync. The target must be one file system,
for the move to be one step.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from colorize.archive.manifest import FOLDER, Row
from colorize.errors import ArchiveError, PictureError
from colorize.imaging.files import write_whole


class Staging:
    """One run's staging folder, seen by its driver and by its workers."""

    def __init__(self, target: Path, run_id: str) -> None:
        self._target = target
        self.folder = target / FOLDER / "staging" / run_id

    def open(self) -> None:
        """Makes the folder. Raises ArchiveError when it cannot be made."""
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise ArchiveError(f"{self._target}: cannot be written ({error.strerror})") from error

    def begin(self, path: str) -> int:
        """Marks a picture as under way; gives how often it has been begun, this time included."""
        try:
            with self._begun(path).open("ab") as file:
                file.write(b".")
                return file.tell()
        except OSError:
            return 1  # closed or full: `put` will fail, and say why

    def put(self, row: Row, data: bytes) -> None:
        """Puts a coloured picture into the target, whole or not at all, its row first: no file is there that no row tells of.

        Raises PictureError when it cannot be written, or there is one already.
        """
        staged, target = self.folder / uuid.uuid4().hex, self._target / row.path
        try:
            write_whole(staged, data)
        except PictureError as error:
            raise PictureError(f"the target cannot be written: {str(error).rpartition(': ')[2]}") from error
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(target):
                raise PictureError("its target appeared during the run; it is left as it is")
            self._keep(row)
            staged.replace(target)
        except OSError as error:
            raise PictureError(f"the target cannot be written: {error.strerror or error}") from error
        finally:
            staged.unlink(missing_ok=True)

    def finish(self, row: Row) -> None:
        """Keeps the row of a picture that has failed or was skipped until the driver has it."""
        with suppress(OSError):  # closed or full: the row has its own way to the driver, unless this worker dies as well
            self._keep(row)

    def finished(self, path: str) -> Row | None:
        """The row of a picture that a worker finished before it died, if it did."""
        return self._read(self._done(path))

    def take(self, row: Row) -> None:
        """The driver has this row."""
        self._done(row.path).unlink(missing_ok=True)

    def close(self) -> list[Row]:
        """Ends the run's hold on the target; gives the rows of pictures that are done and that the driver has not had."""
        # Out of the workers' sight first: while its files are removed one by one, they would go on adding some.
        closed = self.folder.with_name(f"{self.folder.name}.closed")
        try:
            self.folder.replace(closed)
        except OSError:
            return []  # the target is gone; writing the manifest will say so
        rows = [row for file in closed.glob("*.row") if (row := self._read(file))]
        shutil.rmtree(closed, ignore_errors=True)
        if not any(closed.parent.iterdir()):  # no other run's is beside it
            closed.parent.rmdir()
        return rows

    def _begun(self, path: str) -> Path:
        return self.folder / f"{hashlib.sha256(path.encode()).hexdigest()}.begun"

    def _done(self, path: str) -> Path:
        return self._begun(path).with_suffix(".row")

    def _keep(self, row: Row) -> None:
        begun = self._begun(row.path)
        begun.write_text(json.dumps(asdict(row)))
        begun.replace(self._done(row.path))

    def _read(self, file: Path) -> Row | None:
        """A kept row; None where there is none, or its picture did not come as far as the target."""
        try:
            row = Row(**json.loads(file.read_text()))
        except FileNotFoundError:
            return None
        return row if row.status != "coloured" or os.path.lexists(self._target / row.path) else None
