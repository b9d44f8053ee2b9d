"""The batch calls shared by `ModelManager` and `Migrator`.

The two differ only in where records run.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from pyrmute_tasks.engine.batch_arguments import check_chunk_size
from pyrmute_tasks.engine.error_policy import RAISING, ErrorHandling, OnErrorLike, OnReject
from pyrmute_tasks.local.batches import Parallelism
from pyrmute_tasks.plans.plan import Wanted
from pyrmute_tasks.registry import ModelData
from pyrmute_tasks.versions import VersionLike

__all__ = ["Batch", "BatchCalls"]

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Batch:
    """The arguments of a batch call.

    Attributes:
        records: The source.
        name: The model's name.
        from_version: Version of the records.
        to_version: Version of the outputs.
        wanted: The results to return: models or data.
        chunk_size: Records a chunk of a fleet; None chooses it from their size.
        errors: What becomes of records that fail.

    Raises:
        ConfigurationError: If `chunk_size` is not a positive integer.
    """

    records: Iterable[ModelData]
    name: str
    from_version: VersionLike
    to_version: VersionLike
    wanted: Wanted
    chunk_size: int | None
    errors: ErrorHandling = RAISING

    def __post_init__(self) -> None:
        if self.chunk_size is not None:
            check_chunk_size(self.chunk_size)


class BatchCalls(ABC):
    """Six batch calls: eager and lazy, each validated by the target, by another model, or not."""

    @abstractmethod
    def _run_all(self, batch: Batch, parallelism: Parallelism | None) -> list[Any]:
        """Return all outputs."""

    @abstractmethod
    def _stream(self, batch: Batch) -> Generator[Any, None, None]:
        """Yield the outputs on demand."""

    # --- eager --------------------------------------------------------------------------------

    def migrate_batch(
        self,
        data_list: Iterable[ModelData],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        parallel: bool = False,
        max_workers: int | None = None,
        use_processes: bool = False,
        *,
        chunk_size: int | None = None,
        on_error: OnErrorLike = "raise",
        on_reject: OnReject | None = None,
    ) -> list[BaseModel]:
        """Migrate and validate many records.

        A `Migrator` ignores the three arguments for parallelism and uses its fleet's workers; a
        `ModelManager` ignores `chunk_size`.

        Args:
            data_list: The records, as `from_version` has them.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the outputs.
            parallel: Use several workers of this machine instead of this thread.
            max_workers: Number of workers; None means one for each CPU this process may use.
            use_processes: Use processes, for steps that compute, instead of threads, for steps that
                wait for I/O.
            chunk_size: Records a chunk of a fleet; by default chosen from their size.
            on_error: ``"skip"`` leaves out records that fail and goes on; an `ErrorPolicy` limits
                how many. By default the first one ends the batch.
            on_reject: Called with the failure of each record that is skipped, in order.

        Returns:
            The validated models, in the order of the records.

        Raises:
            ConfigurationError: If `max_workers` or `chunk_size` is not a positive integer, or
                `on_error` is unknown.
            ModelNotFoundError: If the model or a version is not registered.
            MigrationError: If there is no path, or a step raises.
            ValidationError: If a migrated record is not valid. Like `MigrationError` it is that of
                the first failing record that is not skipped and has its ``record_index``.
            FleetError: If a fleet cannot be reached or has no workers.
        """
        parallelism = Parallelism.of(parallel, max_workers, use_processes)
        errors = ErrorHandling.of(on_error, on_reject)
        batch = Batch(data_list, name, from_version, to_version, Wanted(), chunk_size, errors)
        return self._run_all(batch, parallelism)

    def migrate_batch_as(
        self,
        data_list: Iterable[ModelData],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        target_type: type[Model],
        parallel: bool = False,
        max_workers: int | None = None,
        use_processes: bool = False,
        *,
        chunk_size: int | None = None,
        on_error: OnErrorLike = "raise",
        on_reject: OnReject | None = None,
    ) -> list[Model]:
        """Migrate records and validate them as `target_type`; otherwise like `migrate_batch`."""
        parallelism = Parallelism.of(parallel, max_workers, use_processes)
        wanted = Wanted(model=target_type)
        errors = ErrorHandling.of(on_error, on_reject)
        batch = Batch(data_list, name, from_version, to_version, wanted, chunk_size, errors)
        return self._run_all(batch, parallelism)

    def migrate_batch_data(
        self,
        data_list: Iterable[ModelData],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        parallel: bool = False,
        max_workers: int | None = None,
        use_processes: bool = False,
        *,
        chunk_size: int | None = None,
        on_error: OnErrorLike = "raise",
        on_reject: OnReject | None = None,
    ) -> list[ModelData]:
        """Migrate many records without validation; otherwise like `migrate_batch`."""
        parallelism = Parallelism.of(parallel, max_workers, use_processes)
        wanted = Wanted(validated=False)
        errors = ErrorHandling.of(on_error, on_reject)
        batch = Batch(data_list, name, from_version, to_version, wanted, chunk_size, errors)
        return self._run_all(batch, parallelism)

    # --- lazy -----------------------------------------------------------------------------------

    def migrate_batch_streaming(
        self,
        data_list: Iterable[ModelData],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        chunk_size: int | None = None,
        *,
        on_error: OnErrorLike = "raise",
        on_reject: OnReject | None = None,
    ) -> Generator[BaseModel, None, None]:
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
            on_error: ``"skip"`` leaves out records that fail and goes on, as by `migrate_batch`.
            on_reject: Called with the failure of each record that is skipped, when the outputs
                before it have been consumed.

        Yields:
            The validated models, in the order of the records. Those before a failing record come
            first, then its error is raised, as by `migrate_batch`. The same holds if the source
            raises an `Exception`; an exit or an interrupt from it cancels the job at once.
        """
        errors = ErrorHandling.of(on_error, on_reject)
        batch = Batch(data_list, name, from_version, to_version, Wanted(), chunk_size, errors)
        return self._stream(batch)

    def migrate_batch_streaming_as(
        self,
        data_list: Iterable[ModelData],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        target_type: type[Model],
        chunk_size: int | None = None,
        *,
        on_error: OnErrorLike = "raise",
        on_reject: OnReject | None = None,
    ) -> Generator[Model, None, None]:
        """Validate as `target_type`; otherwise like `migrate_batch_streaming`."""
        wanted = Wanted(model=target_type)
        errors = ErrorHandling.of(on_error, on_reject)
        batch = Batch(data_list, name, from_version, to_version, wanted, chunk_size, errors)
        return self._stream(batch)

    def migrate_batch_data_streaming(
        self,
        data_list: Iterable[ModelData],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        chunk_size: int | None = None,
        *,
        on_error: OnErrorLike = "raise",
        on_reject: OnReject | None = None,
    ) -> Generator[ModelData, None, None]:
        """Skip validation; otherwise like `migrate_batch_streaming`."""
        wanted = Wanted(validated=False)
        errors = ErrorHandling.of(on_error, on_reject)
        batch = Batch(data_list, name, from_version, to_version, wanted, chunk_size, errors)
        return self._stream(batch)
