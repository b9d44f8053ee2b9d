"""The batch calls of `ModelManager` and `Migrator`, which differ in where records run.

A function that takes a `BatchMigrator` runs in one process or on a fleet, as its caller likes.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from pyrmute_tasks.engine.batch import Batch, BatchOptions
from pyrmute_tasks.engine.batch_arguments import check_target_type
from pyrmute_tasks.engine.error_policy import OnErrorLike, OnReject
from pyrmute_tasks.engine.events import Observer
from pyrmute_tasks.engine.stream import Stream
from pyrmute_tasks.local.batches import Parallelism
from pyrmute_tasks.plans.plan import Wanted
from pyrmute_tasks.records import RecordLike
from pyrmute_tasks.registry import ModelData
from pyrmute_tasks.versions import VersionLike

__all__ = ["BatchMigrator", "Model"]

Model = TypeVar("Model", bound=BaseModel)


# Above 250 lines: signatures and documentation of six public calls take most of them.
class BatchMigrator(ABC):
    """Migrates many records: a `ModelManager` in this process, a `Migrator` on a fleet.

    Six calls: eager and lazy, each validated by the target, by another model, or not.

    Example:
        ```python
        def upgrade(migrator: BatchMigrator, rows: Iterable[RecordLike]) -> None:
            for user in migrator.migrate_batch_streaming(rows, "User", "1.0.0", "2.0.0"):
                print(user)

        upgrade(manager, rows)
        ```
    """

    # --- eager --------------------------------------------------------------------------------

    def migrate_batch(
        self,
        data_list: Iterable[RecordLike],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        parallel: bool = False,
        max_workers: int | None = None,
        use_processes: bool = False,
        *,
        chunk_size: int | None = None,
        observers: Sequence[Observer] = (),
        progress: bool = False,
        on_error: OnErrorLike = "raise",
        on_reject: OnReject | None = None,
    ) -> list[BaseModel]:
        """Migrate and validate many records.

        A `Migrator` ignores the three arguments for parallelism and uses its fleet's workers; a
        `ModelManager` ignores `chunk_size`.

        Args:
            data_list: The records, as `from_version` has them: dicts, or what `RecordLike` names.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the outputs.
            parallel: Use several workers of this machine instead of this thread.
            max_workers: Number of workers; None means one for each CPU this process may use.
            use_processes: Use processes, for steps that compute, instead of threads, for steps that
                wait for I/O.
            chunk_size: Records a chunk of a fleet; by default chosen from their size.
            observers: Called with the job's events, of which the last has its report.
            progress: Show a progress bar on stderr.
            on_error: ``"skip"`` leaves out records that fail and goes on; an `ErrorPolicy` limits
                how many. By default the first one ends the call.
            on_reject: Called with the failure of each record that is skipped, in order.

        Returns:
            The validated models, in the order of the records.

        Raises:
            ConfigurationError: If `max_workers` or `chunk_size` is not a positive integer.
            ModelNotFoundError: If the model or a version is not registered.
            MigrationError: If there is no path, or a step raises.
            InvalidRecordError: If a record cannot be made a dict, or a step returns none.
            ValidationError: If a migrated record is not valid. Like the two above it is that of
                the first failing record that is not skipped; `record_index` tells its position.
            FleetError: If a fleet cannot be reached or has no workers.

        Example:
            ```python
            users = manager.migrate_batch(rows, "User", "1.0.0", "2.0.0")
            ```
        """
        parallelism = Parallelism.of(parallel, max_workers, use_processes)
        options = BatchOptions.of(chunk_size, observers, progress, on_error, on_reject)
        batch = Batch(data_list, name, from_version, to_version, Wanted(), options)
        return self._run_all(batch, parallelism)

    def migrate_batch_as(
        self,
        data_list: Iterable[RecordLike],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        target_type: type[Model],
        parallel: bool = False,
        max_workers: int | None = None,
        use_processes: bool = False,
        *,
        chunk_size: int | None = None,
        observers: Sequence[Observer] = (),
        progress: bool = False,
        on_error: OnErrorLike = "raise",
        on_reject: OnReject | None = None,
    ) -> list[Model]:
        """Migrate many records and validate them as another model.

        Args:
            data_list: The records, as `from_version` has them.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the outputs.
            target_type: The class to validate the outputs with.
            parallel: Use several workers of this machine instead of this thread.
            max_workers: Number of workers; None means one for each usable CPU.
            use_processes: Use processes instead of threads.
            chunk_size: Records a chunk of a fleet; by default chosen from their size.
            observers: Called with the job's events.
            progress: Show a progress bar on stderr.
            on_error: ``"skip"`` leaves out records that fail and goes on; an `ErrorPolicy` limits
                how many. By default the first one ends the call.
            on_reject: Called with the failure of each record that is skipped, in order.

        Returns:
            The models, in the order of the records.

        Raises:
            PyrmuteTasksError: As `migrate_batch`.
            ValidationError: If a migrated record is not a valid `target_type`.
        """
        parallelism = Parallelism.of(parallel, max_workers, use_processes)
        options = BatchOptions.of(chunk_size, observers, progress, on_error, on_reject)
        wanted = Wanted(model=check_target_type(target_type))
        batch = Batch(data_list, name, from_version, to_version, wanted, options)
        return self._run_all(batch, parallelism)

    def migrate_batch_data(
        self,
        data_list: Iterable[RecordLike],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        parallel: bool = False,
        max_workers: int | None = None,
        use_processes: bool = False,
        *,
        chunk_size: int | None = None,
        observers: Sequence[Observer] = (),
        progress: bool = False,
        on_error: OnErrorLike = "raise",
        on_reject: OnReject | None = None,
    ) -> list[ModelData]:
        """Migrate many records without validation.

        Args:
            data_list: The records, as `from_version` has them.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the outputs.
            parallel: Use several workers of this machine instead of this thread.
            max_workers: Number of workers; None means one for each usable CPU.
            use_processes: Use processes instead of threads.
            chunk_size: Records a chunk of a fleet; by default chosen from their size.
            observers: Called with the job's events.
            progress: Show a progress bar on stderr.
            on_error: ``"skip"`` leaves out records that fail and goes on; an `ErrorPolicy` limits
                how many. By default the first one ends the call.
            on_reject: Called with the failure of each record that is skipped, in order.

        Returns:
            The last step's dicts, in the order of the records.

        Raises:
            PyrmuteTasksError: As `migrate_batch`.
        """
        parallelism = Parallelism.of(parallel, max_workers, use_processes)
        options = BatchOptions.of(chunk_size, observers, progress, on_error, on_reject)
        wanted = Wanted(validated=False)
        batch = Batch(data_list, name, from_version, to_version, wanted, options)
        return self._run_all(batch, parallelism)

    # --- lazy -----------------------------------------------------------------------------------

    def migrate_batch_streaming(
        self,
        data_list: Iterable[RecordLike],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        chunk_size: int | None = None,
        *,
        observers: Sequence[Observer] = (),
        progress: bool = False,
        on_error: OnErrorLike = "raise",
        on_reject: OnReject | None = None,
    ) -> Stream[BaseModel]:
        """Migrate and validate records lazily.

        A `ModelManager` reads each record when its output is requested. A `Migrator` runs steps
        on its workers and builds the models here, from the data they return: an instance cannot
        be sent without pickle.

        Args:
            data_list: The records, closed when the iteration ends. A `Migrator` reads at most one
                window ahead of the outputs, in the thread that consumes them unless `in_thread`
                allows another one.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the outputs.
            chunk_size: Records a chunk of a fleet; by default chosen from their size.
            observers: Called with the job's events.
            progress: Show a progress bar on stderr.
            on_error: ``"skip"`` leaves out records that fail and goes on; an `ErrorPolicy` limits
                how many. By default the first one ends the call.
            on_reject: Called with the failure of each record that is skipped, in order.

        Returns:
            A stream that yields the validated models, in the order of the records, and has the
            call's report. The outputs before a failing record come first, then its error is
            raised, as by `migrate_batch`. The same holds if the source raises an `Exception`; an
            exit or an interrupt from it cancels the job at once.

        Raises:
            ConfigurationError: If `chunk_size` is not a positive integer.

        Example:
            ```python
            for user in manager.migrate_batch_streaming(rows, "User", "1.0.0", "2.0.0"):
                print(user)
            ```
        """
        options = BatchOptions.of(chunk_size, observers, progress, on_error, on_reject)
        batch = Batch(data_list, name, from_version, to_version, Wanted(), options)
        return self._stream(batch)

    def migrate_batch_streaming_as(
        self,
        data_list: Iterable[RecordLike],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        target_type: type[Model],
        chunk_size: int | None = None,
        *,
        observers: Sequence[Observer] = (),
        progress: bool = False,
        on_error: OnErrorLike = "raise",
        on_reject: OnReject | None = None,
    ) -> Stream[Model]:
        """Migrate records lazily and validate them as another model.

        Args:
            data_list: The records, closed when the iteration ends.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the outputs.
            target_type: The class to validate the outputs with.
            chunk_size: Records a chunk of a fleet; by default chosen from their size.
            observers: Called with the job's events.
            progress: Show a progress bar on stderr.
            on_error: ``"skip"`` leaves out records that fail and goes on; an `ErrorPolicy` limits
                how many. By default the first one ends the call.
            on_reject: Called with the failure of each record that is skipped, in order.

        Returns:
            A stream like that of `migrate_batch_streaming`.

        Raises:
            ConfigurationError: If `chunk_size` is not a positive integer.
        """
        options = BatchOptions.of(chunk_size, observers, progress, on_error, on_reject)
        wanted = Wanted(model=check_target_type(target_type))
        batch = Batch(data_list, name, from_version, to_version, wanted, options)
        return self._stream(batch)

    def migrate_batch_data_streaming(
        self,
        data_list: Iterable[RecordLike],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        chunk_size: int | None = None,
        *,
        observers: Sequence[Observer] = (),
        progress: bool = False,
        on_error: OnErrorLike = "raise",
        on_reject: OnReject | None = None,
    ) -> Stream[ModelData]:
        """Migrate records lazily, without validation.

        Args:
            data_list: The records, closed when the iteration ends.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the outputs.
            chunk_size: Records a chunk of a fleet; by default chosen from their size.
            observers: Called with the job's events.
            progress: Show a progress bar on stderr.
            on_error: ``"skip"`` leaves out records that fail and goes on; an `ErrorPolicy` limits
                how many. By default the first one ends the call.
            on_reject: Called with the failure of each record that is skipped, in order.

        Returns:
            A stream like that of `migrate_batch_streaming`, of the last step's dicts.

        Raises:
            ConfigurationError: If `chunk_size` is not a positive integer.
        """
        options = BatchOptions.of(chunk_size, observers, progress, on_error, on_reject)
        wanted = Wanted(validated=False)
        batch = Batch(data_list, name, from_version, to_version, wanted, options)
        return self._stream(batch)

    # --- where records run ----------------------------------------------------------------------

    @abstractmethod
    def _run_all(self, batch: Batch, parallelism: Parallelism | None) -> list[Any]:
        """Return all outputs."""

    @abstractmethod
    def _stream(self, batch: Batch) -> Stream[Any]:
        """Return the outputs on demand."""
