"""The batch calls shared by `ModelManager` and `Migrator`, which differ in where records run.

They are documented in `BatchMigrator`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from pyrmute_tasks.batch_migrator import BatchMigrator, Model
from pyrmute_tasks.engine.batch_arguments import (
    check_chunk_size,
    check_observers,
    check_records,
    check_target_type,
)
from pyrmute_tasks.engine.error_policy import RAISING, ErrorHandling, OnErrorLike, OnReject
from pyrmute_tasks.engine.events import Observer
from pyrmute_tasks.engine.stream import Stream
from pyrmute_tasks.local.batches import Parallelism
from pyrmute_tasks.plans.plan import Wanted
from pyrmute_tasks.records import RecordLike
from pyrmute_tasks.registry import ModelData
from pyrmute_tasks.versions import VersionLike

__all__ = ["Batch", "BatchCalls"]


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
        watchers: The caller's observers.
        progress: Whether to show a progress bar.
        errors: The handling of records that fail.

    Raises:
        ConfigurationError: If `chunk_size` is not a positive integer, `records` is a single
            record or a text, or `watchers` are no functions.
    """

    records: Iterable[Any]
    name: str
    from_version: VersionLike
    to_version: VersionLike
    wanted: Wanted
    chunk_size: int | None
    watchers: Sequence[Observer] = ()
    progress: bool = False
    errors: ErrorHandling = RAISING

    def __post_init__(self) -> None:
        if self.chunk_size is not None:
            check_chunk_size(self.chunk_size)
        check_records(self.records)
        check_observers(self.watchers)

    def observers(self) -> tuple[Observer, ...]:
        """Return the observers of the call, with a progress bar if one is wanted."""
        if not self.progress:
            return tuple(self.watchers)
        from pyrmute_tasks.engine.progress import bar_over  # calls without a bar do without

        return (*self.watchers, bar_over(self.records))


class BatchCalls(BatchMigrator, ABC):
    """The six batch calls, in terms of two."""

    @abstractmethod
    def _run_all(self, batch: Batch, parallelism: Parallelism | None) -> list[Any]:
        """Return all outputs."""

    @abstractmethod
    def _stream(self, batch: Batch) -> Stream[Any]:
        """Return the outputs on demand."""

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
        parallelism = Parallelism.of(parallel, max_workers, use_processes)
        wanted = Wanted()
        hop = name, from_version, to_version
        errors = ErrorHandling.of(on_error, on_reject)
        batch = Batch(data_list, *hop, wanted, chunk_size, observers, progress, errors)
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
        parallelism = Parallelism.of(parallel, max_workers, use_processes)
        wanted = Wanted(model=check_target_type(target_type))
        hop = name, from_version, to_version
        errors = ErrorHandling.of(on_error, on_reject)
        batch = Batch(data_list, *hop, wanted, chunk_size, observers, progress, errors)
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
        parallelism = Parallelism.of(parallel, max_workers, use_processes)
        wanted = Wanted(validated=False)
        hop = name, from_version, to_version
        errors = ErrorHandling.of(on_error, on_reject)
        batch = Batch(data_list, *hop, wanted, chunk_size, observers, progress, errors)
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
        hop = name, from_version, to_version
        errors = ErrorHandling.of(on_error, on_reject)
        batch = Batch(data_list, *hop, Wanted(), chunk_size, observers, progress, errors)
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
        wanted = Wanted(model=check_target_type(target_type))
        hop = name, from_version, to_version
        errors = ErrorHandling.of(on_error, on_reject)
        batch = Batch(data_list, *hop, wanted, chunk_size, observers, progress, errors)
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
        wanted = Wanted(validated=False)
        hop = name, from_version, to_version
        errors = ErrorHandling.of(on_error, on_reject)
        batch = Batch(data_list, *hop, wanted, chunk_size, observers, progress, errors)
        return self._stream(batch)
