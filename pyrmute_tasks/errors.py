# Above 400 lines: the tree of all exceptions, each with its attributes and message.
"""The exceptions of this package, in one tree.

::

    PyrmuteTasksError
    ├── VersionedModelError            pyrmute's names, attributes and messages
    │   ├── ModelNotFoundError         a model or a version is not registered
    │   ├── MigrationError             a step raised, or there is no path of steps
    │   └── InvalidVersionError        not a "major.minor.patch"
    ├── RegistrationError              two different classes for one version
    ├── InvalidRecordError             a record is not an object, a line is not JSON
    ├── ConfigurationError             an invalid option, URL or setting
    │   ├── ManagerImportError         the manager cannot be imported by that name
    │   └── OutputInUseError           another run is writing the output
    ├── MissingExtraError              what is delegated to pyrmute, without pyrmute
    ├── WireError                      something cannot be sent or read
    │   ├── FrameError                 truncated, oversized or foreign bytes
    │   │   └── FrameTooLargeError     records exceed the store's limit
    │   └── UnsupportedValueError      a value cannot be sent without loss
    ├── FleetError                     a failure between the producer and its workers
    │   ├── BrokerUnavailableError     the broker does not answer
    │   ├── StoreUnavailableError      the store does not answer
    │   ├── NoWorkersError             no worker answers on the queue
    │   ├── StalledError               workers are idle, and no chunk moves
    │   ├── CodeMismatchError          a worker's migrations differ from the producer's
    │   ├── StorageUnreachableError    no worker can read or write the files by reference
    │   ├── SignatureError             a message is not signed with the secret
    │   └── MigratorClosedError        the Migrator was closed during a job
    ├── JobError                       a job cannot continue
    │   ├── ProcessDiedError           a record kills every process that runs it
    │   ├── JobLostError               the store no longer knows the job
    │   ├── JobLogError                a job's log is damaged, or contradicts itself
    │   │   └── JobFormatError         a newer version has written the job's folder
    │   ├── LeaseLostError             another process drives the job now
    │   ├── JobChangedError            source, code or options are not those of the job
    │   ├── JobExistsError             a job's folder is there already
    │   ├── JobNotFoundError           there is no job of that name
    │   ├── JobFailedError             a submitted job has failed, or was cancelled
    │   └── ProofError                 what a job has written is not whole
    └── RemoteError                    stands for an exception whose class is not loaded here

An error of a record has its position as ``record_index`` (counted from 0 over the whole input)
and says so in a note. All errors survive pickling with their type, attributes, message and
notes.

Once pyrmute is imported, too, `VersionedModelError` and the three below it are subclasses of
pyrmute's classes of these names, so that an ``except`` of either library's catches them; `as_ours`
makes ours of what pyrmute raises.
"""

import contextlib
import sys
from collections.abc import Iterable
from typing import Any, Final, Self

__all__ = [
    "BrokerUnavailableError",
    "CodeMismatchError",
    "ConfigurationError",
    "FleetError",
    "FrameError",
    "FrameTooLargeError",
    "InvalidRecordError",
    "InvalidVersionError",
    "JobChangedError",
    "JobError",
    "JobExistsError",
    "JobFailedError",
    "JobFormatError",
    "JobLogError",
    "JobLostError",
    "JobNotFoundError",
    "LeaseLostError",
    "ManagerImportError",
    "MigrationError",
    "MigratorClosedError",
    "MissingExtraError",
    "ModelNotFoundError",
    "NoWorkersError",
    "OutputInUseError",
    "ProcessDiedError",
    "ProofError",
    "PyrmuteTasksError",
    "RegistrationError",
    "RemoteError",
    "SignatureError",
    "StalledError",
    "StorageUnreachableError",
    "StoreUnavailableError",
    "UnsupportedValueError",
    "VersionedModelError",
    "WireError",
    "as_ours",
    "derive_from_pyrmutes",
    "printable",
]


_MOST_LISTED: Final = 20


def printable(text: object) -> str:
    """Escape a text with control characters, so that it fits on one line of a log."""
    shown = str(text)
    return shown if shown.isprintable() else ascii(shown)[1:-1]


class PyrmuteTasksError(Exception):
    """Base class of this package's exceptions."""

    #: Position of the record in the input, counted from 0; None if there is no record.
    record_index: int | None = None
    #: Place of the record, ``"flights.jsonl, line 7"``; empty if unknown.
    record_source: str = ""
    #: Place that raised the original exception, ``"flights.py:88 in parse"``.
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
    derive_from_pyrmutes()
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class VersionedModelError(PyrmuteTasksError):
    """Base class of the errors that pyrmute has too."""

    def _say(self, message: str) -> None:
        """Set the text of the error, and make it one of pyrmute's class, too, if that is loaded."""
        derive_from_pyrmutes()
        Exception.__init__(self, message)  # super() may be pyrmute's, which takes other arguments


class ModelNotFoundError(VersionedModelError):
    """A model, or a version of it, is not registered.

    Args:
        name: The model's name.
        version: The missing version; None if the whole model is missing.
    """

    registered: tuple[str, ...] | None = None

    def __init__(self, name: str, version: str | None = None) -> None:
        self.name = name
        self.version = version
        which = f"'{printable(name)}'"
        if version:
            which += f" version '{printable(version)}'"
        self._say(f"Model {which} not found in registry")

    def among(self, registered: Iterable[object]) -> Self:
        """Add a note of what is registered, since the message is pyrmute's.

        Args:
            registered: The names of the models or, if a version is missing, the versions.

        Returns:
            This error.
        """
        self.registered = tuple(map(printable, registered))
        self.add_note(self.hint)
        return self

    @property
    def hint(self) -> str:
        """What is registered, in words; empty if that is unknown."""
        if self.registered is None:
            return ""
        more = len(self.registered) - _MOST_LISTED
        shown = ", ".join(self.registered[:_MOST_LISTED]) + (
            f" and {more} more" if more > 0 else ""
        )
        return f"registered {'versions' if self.version else 'models'}: {shown or 'none'}"


class MigrationError(VersionedModelError):
    """A step of a migration failed, or no chain of steps leads to the target.

    Args:
        name: The model's name.
        from_version: Where the step or the path starts.
        to_version: Where it ends.
        reason: The cause.
    """

    def __init__(
        self, name: str, from_version: str, to_version: str, reason: str | None = None
    ) -> None:
        self.name = name
        self.from_version = from_version
        self.to_version = to_version
        self.reason = reason
        message = f"Migration failed for '{name}': {from_version} → {to_version}"
        self._say(f"{message}\nReason: {reason}" if reason else message)


class InvalidVersionError(VersionedModelError):
    """A version string is not "major.minor.patch" of three non-negative integers.

    Args:
        version_string: The text as given.
        reason: The mistake in it.
    """

    def __init__(self, version_string: str, reason: str | None = None) -> None:
        self.version_string = version_string
        self.reason = reason
        message = f"Invalid version string: '{printable(version_string)}'"
        self._say(f"{message}\n{reason}" if reason else message)


_PYRMUTES: Final = (
    VersionedModelError,  # first: the others inherit what it inherits
    ModelNotFoundError,
    MigrationError,
    InvalidVersionError,
)
_OWN_BASES: Final = {ours: ours.__bases__ for ours in _PYRMUTES}


def derive_from_pyrmutes() -> None:
    """Make our classes subclasses of pyrmute's of the same names, if pyrmute is imported.

    Whoever writes ``except pyrmute.MigrationError`` has imported pyrmute before an error comes, so
    this is called when one is made, here or from what another process sent.
    """
    theirs = sys.modules.get("pyrmute.exceptions")
    if theirs is None:
        return
    for ours in _PYRMUTES:
        base = getattr(theirs, ours.__name__, None)  # None while its module is being imported
        if base is not None and base not in ours.__bases__:
            # Somebody's class that names pyrmute's before ours has no order then, and stays.
            with contextlib.suppress(TypeError):
                ours.__bases__ = (*_OWN_BASES[ours], base)


derive_from_pyrmutes()


def as_ours(error: Exception) -> Exception:
    """Convert an error of pyrmute's class to ours, with its text, attributes and causes.

    Args:
        error: Any error; what is not exactly of one of pyrmute's classes is returned itself.
    """
    derive_from_pyrmutes()
    theirs = sys.modules.get("pyrmute.exceptions")
    for ours in _PYRMUTES:
        if theirs is not None and type(error) is getattr(theirs, ours.__name__, None):
            made = ours.__new__(ours)
            made.args = error.args
            made.__dict__.update(error.__dict__)
            made.__cause__, made.__context__ = error.__cause__, error.__context__
            made.__suppress_context__ = error.__suppress_context__
            return made.with_traceback(error.__traceback__)
    return error


class MissingExtraError(PyrmuteTasksError, ImportError):
    """A call is delegated to pyrmute, which is not installed or lacks a library.

    Args:
        what: The name that was used.
        missing: The library that is not installed.
    """

    def __init__(self, what: str, missing: str = "pyrmute") -> None:
        self.what = what
        self.missing = missing
        super().__init__(
            f"{what} comes from pyrmute, and {missing} is not installed: "
            "python -m pip install 'pyrmute-tasks[pyrmute]'"
        )


class RegistrationError(PyrmuteTasksError):
    """A registration contradicts an earlier one."""


class InvalidRecordError(PyrmuteTasksError, ValueError):
    """An input is not a JSON object, or a step did not return a dict."""


class ConfigurationError(PyrmuteTasksError, ValueError):
    """An option, a setting or a URL is invalid."""


class ManagerImportError(ConfigurationError):
    """A manager cannot be imported by its name."""


class OutputInUseError(ConfigurationError):
    """Another run is writing the output, or has taken it over."""


class WireError(PyrmuteTasksError):
    """A value cannot be encoded for the wire, or bytes from it cannot be decoded."""


class FrameError(WireError):
    """The bytes of a frame are truncated, oversized, or not a frame of this version."""


class FrameTooLargeError(FrameError):
    """Records exceed the store's limit for a value.

    Args:
        count: Number of records.
        size_bytes: Their size.
        limit_bytes: The limit.
    """

    def __init__(self, count: int, size_bytes: int, limit_bytes: int) -> None:
        self.count = count
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes
        if count > 1:
            size = f"a chunk of {count} records is {size_bytes} bytes"
            advice = "choose a smaller chunk_size"
        else:
            size = f"the record is {size_bytes} bytes"
            advice = "it cannot travel; migrate it in one process, with ModelManager"
        super().__init__(f"{size} and the limit is {limit_bytes}: {advice}")


class UnsupportedValueError(WireError):
    """A record holds a value that cannot be sent without loss.

    Args:
        type_name: The value's type.
        path: Its place in the record, such as ``address.tags[3]``.
    """

    def __init__(self, type_name: str, path: str) -> None:
        self.type_name = type_name
        self.path = path
        super().__init__(
            f"a value of type {type_name} at {path} cannot be sent to a worker without loss; "
            "convert it in the source, or migrate with a local executor"
        )


class FleetError(PyrmuteTasksError):
    """A failure between the producer and its workers."""


class BrokerUnavailableError(FleetError):
    """The broker does not answer."""


class StoreUnavailableError(FleetError):
    """The store does not answer."""


class NoWorkersError(FleetError):
    """No worker answers on the job's queue."""


class StalledError(FleetError):
    """Workers with the right code are idle, and no chunk of the job moves."""


class CodeMismatchError(FleetError):
    """Models or steps of a worker differ from the producer's."""


class StorageUnreachableError(FleetError):
    """No worker can read or write the files of a job by reference."""


class SignatureError(FleetError):
    """A message's signature is missing or invalid, or unexpected because no secret is set."""


class MigratorClosedError(FleetError):
    """A `Migrator` was closed while a job ran, or before its stream was read."""


class JobError(PyrmuteTasksError):
    """A job cannot continue."""


class ProcessDiedError(JobError):
    """A record ended every process that ran it.

    Args:
        how: How the last one died, ``"signal 9 (SIGKILL)"``.
        crashes: Number of processes that died of this record alone.
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


class JobLogError(JobError):
    """A job's log is damaged, or an entry contradicts the settled ranges."""


class JobFormatError(JobLogError):
    """A job's folder was written by a newer version of this package."""


class LeaseLostError(JobError):
    """Another process drives the job now."""


class JobChangedError(JobError):
    """A job cannot resume with another source, other code or other options."""


class JobExistsError(JobError):
    """A job's folder exists already."""


class JobNotFoundError(JobError):
    """A folder holds no job, or none of that name."""


class JobFailedError(JobError):
    """A submitted job has failed, or was cancelled.

    Args:
        job: Its id.
        result: How it ended: ``failed`` or ``cancelled``.
        why: The reason, as its log has it.
    """

    def __init__(self, job: str, result: str, why: str = "") -> None:
        self.job = job
        self.result = result
        self.why = why
        was = "was cancelled" if result == "cancelled" else "has failed"
        super().__init__(f"job {job} {was}: {why}" if why else f"job {job} {was}")


class ProofError(JobError):
    """A job's output does not cover its source, or differs from the settled outputs."""


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
