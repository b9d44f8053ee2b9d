"""`Migrator`: the batch calls of `ModelManager` on a fleet, and files.

Here it starts and closes; its calls are in `batch_migrator` and `file_calls`.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from pyrmute_tasks.batch_migrator import BatchMigrator
from pyrmute_tasks.engine.batch import Batch
from pyrmute_tasks.engine.batch_arguments import usable_cpus
from pyrmute_tasks.engine.job_report import JobReport
from pyrmute_tasks.engine.stream import Stream
from pyrmute_tasks.engine.window import Window
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.fleet_jobs import FleetJobs
from pyrmute_tasks.local.batches import Parallelism
from pyrmute_tasks.plans.retry import Retry
from pyrmute_tasks.pyrmute_adapter import Manager, adapt, load_manager
from pyrmute_tasks.record_runs import stream_records
from pyrmute_tasks.records import RecordLike
from pyrmute_tasks.service.calls import JobCalls
from pyrmute_tasks.service.embedded_coordinators import EmbeddedCoordinators
from pyrmute_tasks.settings import ENV_PREFIX, Settings
from pyrmute_tasks.versions import VersionLike

if TYPE_CHECKING:
    from pyrmute_tasks.audit import AuditReport

__all__ = ["Migrator"]


# Above 250 lines: a public façade, whose documentation and annotated arguments take most of them.
class Migrator(BatchMigrator, JobCalls):
    """Runs migrations on a fleet of Celery workers.

    Three ways to start say what they do: `Migrator.embedded` starts a fleet of its own, with a
    real Valkey server and `workers` worker processes, and stops it with the context;
    `Migrator.connect` uses workers that run elsewhere with the same manager; `Migrator.from_env`
    does one or the other, as the variables of the command line say.

    Called itself, it starts a fleet of its own if `workers` are given, or neither a URL nor
    settings, and uses a running one otherwise. It reads no variables.

    Threads may share a `Migrator` and its fleet. A fork owns neither the fleet nor the jobs of its
    parent; it gets its own fleet when it calls a method. Close it, or leave its ``with`` block; if
    it is garbage-collected open, its fleet ends with a `ResourceWarning`. Closing ends open
    streams, which raise `MigratorClosedError`.

    Args:
        manager: The manager's name, ``package.module:attribute`` or
            ``path/to/file.py:attribute``, or the manager itself if workers can import it as an
            attribute of a module.
        broker_url: URL of a running fleet's broker.
        store_url: URL of its store; by default the broker, if it is Redis.
        workers: Worker processes of the embedded fleet; by default the number of CPUs this
            process may use.
        window: Upper bound of what a job has in flight; by default four chunks a worker slot. The
            jobs of a queue share the default; a job that is not alone gets at most its share.
        settings: All other options, and URLs that are not given as arguments. An embedded fleet
            has URLs of its own and takes no others.
        retry: Which exceptions of steps to retry. By default every exception is final.

    Raises:
        ConfigurationError: If options contradict each other.
        ManagerImportError: If the manager cannot be imported by name.

    Example:
        ```python
        with Migrator.embedded("examples/flights.py:manager") as migrator:
            for flight in migrator.migrate_batch_streaming(rows, "Flight", "1.0.0", "3.0.0"):
                print(flight)
        ```
    """

    def __init__(
        self,
        manager: str | Manager,
        *,
        broker_url: str | None = None,
        store_url: str | None = None,
        workers: int | None = None,
        window: Window | None = None,
        settings: Settings | None = None,
        retry: Retry | None = None,
    ) -> None:
        _check_kind("window", window, Window)
        _check_kind("settings", settings, Settings)
        _check_kind("retry", retry, Retry)
        found = load_manager(manager) if isinstance(manager, str) else adapt(manager)
        if broker_url is None and store_url is not None:
            raise ConfigurationError("store_url needs broker_url: name both, or neither")
        if broker_url is not None and workers is not None:
            raise ConfigurationError(
                "workers is the size of the embedded fleet; a fleet that is running has its own"
            )
        if workers is not None and (type(workers) is not int or workers < 1):
            raise ConfigurationError(f"workers must be 1 or more, not {workers!r}")
        embeds = broker_url is None and (settings is None or workers is not None)
        settings = settings or Settings()
        if broker_url is not None:
            store_url = settings.store_url if store_url is None else store_url
            settings = replace(settings, broker_url=broker_url, store_url=store_url)
        self._coordinators = EmbeddedCoordinators()
        self._jobs = FleetJobs(
            found,
            manager if isinstance(manager, str) else found.locate(),
            settings,
            (workers or usable_cpus()) if embeds else None,
            window,
            retry,
        )

    # --- ways to start ----------------------------------------------------------------------

    @classmethod
    def embedded(
        cls,
        manager: str | Manager,
        *,
        workers: int | None = None,
        settings: Settings | None = None,
        window: Window | None = None,
        retry: Retry | None = None,
    ) -> Self:
        """Run on a fleet of its own, which starts and stops with the `Migrator`.

        Args:
            manager: The manager, or its name.
            workers: Worker processes; by default the number of CPUs this process may use.
            settings: Options of the fleet. Its URLs are replaced by those of its own server.
            window: Upper bound of what a job has in flight.
            retry: Which exceptions of steps to retry.

        Returns:
            The `Migrator`, whose fleet starts when its ``with`` block is entered.

        Raises:
            ConfigurationError: If an option is invalid.
            ManagerImportError: If the manager cannot be imported by name.

        Example:
            ```python
            with Migrator.embedded("my_app.models:manager", workers=4) as migrator:
                users = migrator.migrate_batch(rows, "User", "1.0.0", "3.0.0")
            ```
        """
        workers = usable_cpus() if workers is None else workers
        return cls(manager, workers=workers, settings=settings, window=window, retry=retry)

    @classmethod
    def connect(
        cls,
        manager: str | Manager,
        broker_url: str,
        store_url: str | None = None,
        *,
        settings: Settings | None = None,
        window: Window | None = None,
        retry: Retry | None = None,
    ) -> Self:
        """Run on a fleet that is running elsewhere, with the same manager.

        Args:
            manager: The manager, or its name.
            broker_url: URL of the fleet's broker.
            store_url: URL of its store; by default the broker, if it is Redis.
            settings: All other options.
            window: Upper bound of what a job has in flight.
            retry: Which exceptions of steps to retry.

        Returns:
            The `Migrator`, which connects when it is entered or first used.

        Raises:
            ConfigurationError: If an option is invalid.
            ManagerImportError: If the manager cannot be imported by name.

        Example:
            ```python
            with Migrator.connect("my_app.models:manager", "redis://queue.internal/0") as migrator:
                users = migrator.migrate_batch(rows, "User", "1.0.0", "3.0.0")
            ```
        """
        given: object = broker_url  # as from a variable that is not set
        if not isinstance(given, str):
            raise ConfigurationError(
                f"connect takes the URL of a running fleet's broker, not {given!r}; "
                "Migrator.embedded starts a fleet of its own"
            )
        return cls(
            manager,
            broker_url=broker_url,
            store_url=store_url,
            settings=settings,
            window=window,
            retry=retry,
        )

    @classmethod
    def from_env(
        cls,
        manager: str | Manager | None = None,
        env: Mapping[str, str] | None = None,
        *,
        workers: int | None = None,
        window: Window | None = None,
        retry: Retry | None = None,
        ignore_unknown: bool = False,
    ) -> Self:
        """Run where the variables of the command line say: on a running fleet, or an own one.

        With ``PYRMUTE_TASKS_BROKER_URL`` it connects to that fleet, without it starts its own.
        All other ``PYRMUTE_TASKS_*`` variables are the options of either.

        Args:
            manager: The manager, or its name; by default ``PYRMUTE_TASKS_MANAGER``.
            env: The variables; by default those of this process, as they are now.
            workers: Worker processes of an own fleet; not used for a running one.
            window: Upper bound of what a job has in flight.
            retry: Which exceptions of steps to retry.
            ignore_unknown: Warn of unknown ``PYRMUTE_TASKS_*`` variables instead of raising.

        Returns:
            The `Migrator`.

        Raises:
            ConfigurationError: If a variable is unknown or invalid, or there is no manager.
            ManagerImportError: If the manager cannot be imported by name.

        Example:
            ```python
            with Migrator.from_env("my_app.models:manager") as migrator:
                users = migrator.migrate_batch(rows, "User", "1.0.0", "3.0.0")
            ```
        """
        env = os.environ if env is None else env
        settings = Settings.from_env(env, ignore_unknown=ignore_unknown)
        manager = manager or settings.manager
        if not manager:
            raise ConfigurationError(f"which manager? give its name, or set {ENV_PREFIX}MANAGER")
        if env.get(f"{ENV_PREFIX}BROKER_URL"):
            return cls(manager, settings=settings, window=window, retry=retry)
        return cls.embedded(manager, workers=workers, settings=settings, window=window, retry=retry)

    # --- life -------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Start the embedded fleet; does nothing for a running one.

        Raises:
            FleetError: If the embedded fleet does not start.
        """
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Get ready to run jobs; the batch methods do so when needed."""
        self._jobs.open()

    def close(self) -> None:
        """Stop the embedded fleet, close connections and end open streams; may be called twice.

        Submitted jobs that are driven here are let go; they can go on elsewhere, or later.
        Any thread may call it, even the source of a running job.
        """
        self._coordinators.close()
        self._jobs.close()

    @property
    def last_report(self) -> JobReport | None:
        """Report of the job that ended last, even if it failed; None before the first.

        A stream's job ends with the stream.
        """
        return self._jobs.last_report

    # --- before a job -------------------------------------------------------------------------

    def audit(
        self,
        source: Iterable[RecordLike] | str | os.PathLike[str],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        *,
        sample: int | None = 1000,
        include_records: bool = False,
        timeout_s: float = 300.0,
    ) -> "AuditReport":
        """Find steps that depend on more than their record, and fields that get lost; see `audit`.

        It runs in its own processes, not on the fleet.

        Args:
            source: The records, or the path of a file of JSON lines.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the outputs.
            sample: Number of records to run; None runs all.
            include_records: Include values of records as examples.
            timeout_s: Time limit of the whole audit.

        Returns:
            The findings.

        Raises:
            PyrmuteTasksError: If the file cannot be read, the manager cannot be imported, or a
                step ends its process.
        """
        from pyrmute_tasks.audit import audit  # jobs do without

        return audit(
            self._jobs.manager_name,
            source,
            name,
            from_version,
            to_version,
            sample=sample,
            include_records=include_records,
            timeout_s=timeout_s,
        )

    # --- where records run --------------------------------------------------------------------

    def _run_all(self, batch: Batch, parallelism: Parallelism | None) -> list[Any]:
        return list(self._stream(batch))

    def _stream(self, batch: Batch) -> Stream[Any]:
        return stream_records(batch, self._jobs)


def _check_kind(name: str, given: object, kind: type) -> None:
    """Refuse an option of another kind, with which only a job would fail."""
    if given is not None and not isinstance(given, kind):
        raise ConfigurationError(
            f"{name} must be a {kind.__name__}, as {name}={_EXAMPLES[kind]}, not a "
            f"{type(given).__name__}"
        )


_EXAMPLES: Final[Mapping[type, str]] = MappingProxyType(
    {
        Window: "Window(chunks=16)",
        Settings: "Settings(stall_s=120)",
        Retry: "Retry(on=[ConnectionError], attempts=3)",
    }
)
