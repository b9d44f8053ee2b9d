"""Every exception this package raises, in one tree.

::

    PyrmuteTasksError
    ├── VersionedModelError            pyrmute's own names, attributes and messages
    │   ├── ModelNotFoundError         a model or a version nobody registered
    │   ├── MigrationError             a step raised, or there is no path of steps
    │   └── InvalidVersionError        not a "major.minor.patch"
    ├── RegistrationError              two different classes for one version
    ├── InvalidRecordError             a record that is no object, a line that is no JSON
    ├── ConfigurationError             an option, a URL or a setting that cannot be right
    │   ├── ManagerImportError         the manager cannot be found under that name
    │   └── OutputInUseError           another run is writing the output
    ├── WireError                      bytes that cannot be carried, or cannot be read
    │   ├── FrameError                 truncated, oversized or foreign bytes
    │   │   └── FrameTooLargeError     records that are larger than what can travel
    │   └── UnsupportedValueError      a value the wire cannot carry without loss
    ├── FleetError                     something between the producer and its workers
    │   ├── BrokerUnavailableError     nobody answers at the broker's URL
    │   ├── StoreUnavailableError      nobody answers at the store's URL
    │   ├── NoWorkersError             nobody answers on the queue
    │   ├── CodeMismatchError          a worker holds other migrations than the producer
    │   ├── SignatureError             something is not signed with the secret
    │   └── MigratorClosedError        the Migrator was closed while a job of it was open
    ├── JobError                       a job that cannot go on
    │   ├── ProcessDiedError           a record kills whatever process runs it
    │   └── JobLostError               the store no longer knows the job
    └── RemoteError                    stands for an exception whose class is not loaded here

An error that belongs to a record carries its position as ``record_index`` (counted from
0 over the whole input) and says so in a note. All of them survive pickling with their
type, attributes, message and notes.
"""

from typing import Any

__all__ = [
    "BrokerUnavailableError",
    "CodeMismatchError",
    "ConfigurationError",
    "FleetError",
    "FrameError",
    "FrameTooLargeError",
    "InvalidRecordError",
    "InvalidVersionError",
    "JobError",
    "JobLostError",
    "ManagerImportError",
    "MigrationError",
    "MigratorClosedError",
    "ModelNotFoundError",
    "NoWorkersError",
    "OutputInUseError",
    "ProcessDiedError",
    "PyrmuteTasksError",
    "RegistrationError",
    "RemoteError",
    "SignatureError",
    "StoreUnavailableError",
    "UnsupportedValueError",
    "VersionedModelError",
    "WireError",
    "printable",
]


def printable(text: object) -> str:
    """Return a text that may go into a log line: with escapes if it holds control characters."""
    shown = str(text)
    return shown if shown.isprintable() else ascii(shown)[1:-1]


class PyrmuteTasksError(Exception):
    """Base of every exception raised by this package."""

    #: Position of the record the error belongs to, counted from 0; None without one.
    record_index: int | None = None
    #: Where that record came from, ``"flights.jsonl, line 7"``; empty if unknown.
    record_source: str = ""
    #: Where the exception behind this one was raised, ``"flights.py:88 in parse"``.
    raised_at: str = ""
    #: The worker that ran the record; empty if it ran here.
    worker: str = ""
    #: That worker's traceback as text, which may quote the record; empty if it ran here.
    worker_traceback: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        # Subclasses take other arguments than the finished message, so the default
        # (class, self.args) would call __init__ with the message: rebuild by state.
        return _restore, (type(self), self.args, dict(self.__dict__))


def _restore(
    cls: type[PyrmuteTasksError], args: tuple[object, ...], state: dict[str, object]
) -> PyrmuteTasksError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class VersionedModelError(PyrmuteTasksError):
    """Base of the errors that pyrmute knows too."""


class ModelNotFoundError(VersionedModelError):
    """A model, or a version of it, is not in the registry.

    Args:
        name: The model's name.
        version: The version that is missing; None when the whole model is.
    """

    def __init__(self, name: str, version: str | None = None) -> None:
        self.name = name
        self.version = version
        which = f"'{printable(name)}'"
        if version:
            which += f" version '{printable(version)}'"
        super().__init__(f"Model {which} not found in registry")


class MigrationError(VersionedModelError):
    """A step of a migration failed, or no chain of steps leads to the target.

    Args:
        name: The model's name.
        from_version: Where the failing step starts.
        to_version: Where the failing step ends.
        reason: What went wrong.
    """

    def __init__(
        self, name: str, from_version: str, to_version: str, reason: str | None = None
    ) -> None:
        self.name = name
        self.from_version = from_version
        self.to_version = to_version
        self.reason = reason
        message = f"Migration failed for '{name}': {from_version} → {to_version}"
        super().__init__(f"{message}\nReason: {reason}" if reason else message)


class InvalidVersionError(VersionedModelError):
    """A version string is not "major.minor.patch" of three non-negative integers.

    Args:
        version_string: The text as given.
        reason: What is wrong with it.
    """

    def __init__(self, version_string: str, reason: str | None = None) -> None:
        self.version_string = version_string
        message = f"Invalid version string: '{printable(version_string)}'"
        super().__init__(f"{message}\n{reason}" if reason else message)


class RegistrationError(PyrmuteTasksError):
    """A registration contradicts an earlier one."""


class InvalidRecordError(PyrmuteTasksError, ValueError):
    """An input is no record: not a JSON object, or a step returned something else."""


class ConfigurationError(PyrmuteTasksError, ValueError):
    """An option, a setting or a URL cannot be right."""


class ManagerImportError(ConfigurationError):
    """A manager cannot be imported under the name it was given."""


class OutputInUseError(ConfigurationError):
    """Another run is writing the output, or has taken it over."""


class WireError(PyrmuteTasksError):
    """Something cannot be put on the wire or taken from it."""


class FrameError(WireError):
    """The bytes of a frame are truncated, oversized, or not a frame of this version."""


class FrameTooLargeError(FrameError):
    """Records are larger than what the store takes as one value.

    Args:
        count: How many records.
        size_bytes: Their size.
        limit_bytes: The largest that could travel.
    """

    def __init__(self, count: int, size_bytes: int, limit_bytes: int) -> None:
        self.count = count
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes
        if count > 1:
            told = f"a chunk of {count} records is {size_bytes} bytes"
            advice = "choose a smaller chunk_size"
        else:
            told = f"the record is {size_bytes} bytes"
            advice = "it cannot travel; migrate it in one process, with ModelManager"
        super().__init__(f"{told} and the limit is {limit_bytes}: {advice}")


class UnsupportedValueError(WireError):
    """A record holds a value that the wire cannot carry without loss.

    Args:
        type_name: The value's type.
        path: Where in the record it is, for example ``address.tags[3]``.
    """

    def __init__(self, type_name: str, path: str) -> None:
        self.type_name = type_name
        self.path = path
        super().__init__(
            f"a value of type {type_name} at {path} cannot be sent to a worker without loss; "
            "convert it in the source, or migrate with a local executor"
        )


class FleetError(PyrmuteTasksError):
    """Something between the producer and its workers does not work."""


class BrokerUnavailableError(FleetError):
    """Nobody answers at the broker's URL."""


class StoreUnavailableError(FleetError):
    """Nobody answers at the store's URL."""


class NoWorkersError(FleetError):
    """No worker answers on the job's queue."""


class CodeMismatchError(FleetError):
    """A worker holds other models or steps than the producer."""


class SignatureError(FleetError):
    """Something is not signed as the secret demands, or signed where there is no secret."""


class MigratorClosedError(FleetError):
    """A stream outlived its `Migrator`, or this was closed while a job ran."""


class JobError(PyrmuteTasksError):
    """A job cannot go on."""


class ProcessDiedError(JobError):
    """A record ended every process that ran it.

    Args:
        how: How the last one died, ``"signal 9 (SIGKILL)"``.
        crashes: How many died of this record alone.
    """

    def __init__(self, how: str, crashes: int = 1) -> None:
        self.how = how
        self.crashes = crashes
        super().__init__(
            f"this record ended the process that migrated it: {how}; look for a step that exits, "
            "loops or needs more memory than there is"
        )


class JobLostError(JobError):
    """The store no longer knows the job: it was emptied, or the job's keys expired."""


class RemoteError(PyrmuteTasksError):
    """Stands for an exception whose class this process has not imported.

    Args:
        type_name: ``module.QualifiedName`` of the original class.
        message: The original's text.
    """

    def __init__(self, type_name: str, message: str) -> None:
        self.type_name = type_name
        self.message = message
        super().__init__(f"{type_name}: {message}" if message else type_name)
