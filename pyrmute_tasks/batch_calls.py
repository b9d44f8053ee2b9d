"""The batch calls that `ModelManager` and `Migrator` have in common.

They differ in where records run, and in nothing that a caller sees.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from pyrmute_tasks.engine.batch_arguments import check_chunk_size
from pyrmute_tasks.local.batches import Parallelism
from pyrmute_tasks.plans.plan import Wanted
from pyrmute_tasks.registry import ModelData
from pyrmute_tasks.versions import VersionLike

__all__ = ["Batch", "BatchCalls"]

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one batch call was asked for.

    Attributes:
        records: The source.
        name: The model's name.
        from_version: Version of the records.
        to_version: Version of the results.
        wanted: Models or data.
        chunk_size: Records a task of a fleet; None chooses it from their size.

    Raises:
        ConfigurationError: If `chunk_size` is not a positive integer.
    """

    records: Iterable[ModelData]
    name: str
    from_version: VersionLike
    to_version: VersionLike
    wanted: Wanted
    chunk_size: int | None

    def __post_init__(self) -> None:
        if self.chunk_size is not None:
            check_chunk_size(self.chunk_size)


class BatchCalls(ABC):
    """Six calls, all at once and lazily: validated by the target, by another model, or data."""

    @abstractmethod
    def _run_all(self, batch: Batch, parallelism: Parallelism | None) -> list[Any]:
        """Return all outputs."""

    @abstractmethod
    def _stream(self, batch: Batch) -> Generator[Any, None, None]:
        """Yield the outputs as they are asked for."""

    # --- all at once --------------------------------------------------------------------------

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
    ) -> list[BaseModel]:
        """Migrate and validate many records.

        A `Migrator` is parallel whatever the three arguments for it say, with the workers that
        its fleet has; a `ModelManager` has no tasks that `chunk_size` could cut.

        Args:
            data_list: The records, as `from_version` has them.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the results.
            parallel: Use several workers of this machine instead of this thread.
            max_workers: How many; None means one for each CPU this process may use.
            use_processes: Let them be processes, for steps that compute, instead of
                threads, for steps that wait.
            chunk_size: Records a task of a fleet; by default chosen from their size.

        Returns:
            The validated models, in the order of the records.

        Raises:
            ConfigurationError: If `max_workers` or `chunk_size` is not a positive integer.
            ModelNotFoundError: If the model or a version is not registered.
            MigrationError: If there is no path, or a step raises.
            ValidationError: If a migrated record is not valid. As `MigrationError` it is
                that of the first failing record and says its ``record_index``.
            FleetError: If there is a fleet, and it cannot be reached or has no workers.
        """
        parallelism = Parallelism.of(parallel, max_workers, use_processes)
        batch = Batch(data_list, name, from_version, to_version, Wanted(), chunk_size)
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
    ) -> list[Model]:
        """Migrate many records and validate them as `target_type`; else as `migrate_batch`."""
        parallelism = Parallelism.of(parallel, max_workers, use_processes)
        wanted = Wanted(model=target_type)
        batch = Batch(data_list, name, from_version, to_version, wanted, chunk_size)
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
    ) -> list[ModelData]:
        """Migrate many records without validating them; else as `migrate_batch`."""
        parallelism = Parallelism.of(parallel, max_workers, use_processes)
        wanted = Wanted(validated=False)
        batch = Batch(data_list, name, from_version, to_version, wanted, chunk_size)
        return self._run_all(batch, parallelism)

    # --- lazily -------------------------------------------------------------------------------

    def migrate_batch_streaming(
        self,
        data_list: Iterable[ModelData],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        chunk_size: int | None = None,
    ) -> Generator[BaseModel, None, None]:
        """Migrate and validate records lazily.

        A `ModelManager` reads each record when its output is asked for. A `Migrator` runs steps
        on its workers and builds the models here, from what the workers return: a class instance
        cannot travel without pickle.

        Args:
            data_list: The records, closed when the iteration ends. A `Migrator` reads at most
                one window ahead of what is yielded, in the thread that reads the outputs unless
                `in_thread` says that another one may.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the results.
            chunk_size: Records a task of a fleet; by default chosen from their size.

        Yields:
            The validated models, in the order of the records; all those before a failing
            record, then its error is raised as `migrate_batch` raises it. If the
            source itself raises an `Exception`, all before it, too; after an exit or an
            interrupt from there, a job is cancelled at once.
        """
        return self._stream(Batch(data_list, name, from_version, to_version, Wanted(), chunk_size))

    def migrate_batch_streaming_as(
        self,
        data_list: Iterable[ModelData],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        target_type: type[Model],
        chunk_size: int | None = None,
    ) -> Generator[Model, None, None]:
        """Validate as `target_type`; else as `migrate_batch_streaming`."""
        wanted = Wanted(model=target_type)
        return self._stream(Batch(data_list, name, from_version, to_version, wanted, chunk_size))

    def migrate_batch_data_streaming(
        self,
        data_list: Iterable[ModelData],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        chunk_size: int | None = None,
    ) -> Generator[ModelData, None, None]:
        """Do not validate; else as `migrate_batch_streaming`."""
        wanted = Wanted(validated=False)
        return self._stream(Batch(data_list, name, from_version, to_version, wanted, chunk_size))
