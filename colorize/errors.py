"""Every error that a user can meet.

The tree:

    ColorizeError (ValueError)
    ├── ConfigError      a setting is out of range or contradicts another one
    ├── StorageError     a URL makes no sense, or what it names cannot be read or written
    ├── PictureError     a file is not a picture that can be read, or cannot be written
    ├── HintError        hints, a palette or a reference are not what they must be
    ├── ModelError       a model file is missing, damaged, foreign, or newer than this program
    ├── DataError        a data source is missing, empty, damaged or of the wrong layout
    ├── ArchiveError     a bulk run cannot start, or its target cannot be written
    ├── RunError         a training run directory is missing, in the way, or of other settings
    ├── ClusterError     Ray cannot be reached, or has too little for what was asked
    ├── ServiceError     the service cannot start
    ├── ScheduleError    a schedule is not what it must be, or its store cannot be used
    └── RemoteError      a service on the network refuses, fails or does not answer

Each message is one line that names the file or the setting, the cause and, where there is one, the way out. The command line
prints it after `colorize: ` and exits with 1; the library raises it. `assert` is kept for what this package promises itself.

What comes from outside (names of files, what others say) goes into a message by `printable` or `one_line`.
"""


class ColorizeError(ValueError):
    """The base of all errors in this module: catch this to catch what a user can cause."""


class ConfigError(ColorizeError):
    """A setting is out of range or contradicts another one; the message names the setting and its value."""


class StorageError(ColorizeError):
    """A URL makes no sense, or what it names cannot be read or written; the message never has what is secret in it."""


class PictureError(ColorizeError):
    """A file is not a picture that can be read, or a picture cannot be written; the message names the file."""


class HintError(ColorizeError):
    """Hints, a palette or a reference picture are not what they must be; the message names the document and the entry."""


class ModelError(ColorizeError):
    """A model file is missing, damaged, foreign, or newer than this program."""


class DataError(ColorizeError):
    """A data source is missing, empty, damaged or of the wrong layout."""


class ArchiveError(ColorizeError):
    """A bulk run cannot start, or its target cannot be written."""


class RunError(ColorizeError):
    """A training run directory is missing, in the way, or belongs to other settings."""


class ClusterError(ColorizeError):
    """Ray cannot be reached, or has too little for what was asked."""


class ServiceError(ColorizeError):
    """The service cannot start."""


class ScheduleError(ColorizeError):
    """A schedule is not what it must be or is not there, or the store of schedules cannot be used."""


class RemoteError(ColorizeError):
    """A service on the network refuses, fails or does not answer; the message has what it said."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status of a refusal; None where there was no answer, or one that makes no sense."""


def printable(text: object) -> str:
    """A name as it is, but on one line: line breaks, and bytes of a name that are not UTF-8, are `?`."""
    return "".join(character if character.isprintable() else "?" for character in str(text))


def one_line(text: object, longest: int = 500) -> str:
    """What others say, as a message may repeat it: on one line, its white space single, printable, of at most `longest` characters."""
    line = printable(" ".join(str(text).split()))
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
