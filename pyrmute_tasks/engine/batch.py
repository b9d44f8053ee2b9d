"""The arguments of a batch call, checked."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pyrmute_tasks.engine.batch_arguments import check_chunk_size, check_observers, check_records
from pyrmute_tasks.engine.error_policy import ErrorHandling, OnErrorLike, OnReject
from pyrmute_tasks.engine.events import Observer
from pyrmute_tasks.plans.plan import Wanted
from pyrmute_tasks.versions import VersionLike

__all__ = ["Batch", "BatchOptions"]


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """The options that every batch call takes.

    Attributes:
        chunk_size: Records a chunk of a fleet; None chooses it from their size.
        watchers: The caller's observers.
        progress: Whether to show a progress bar.
        errors: The handling of records that fail.

    Raises:
        ConfigurationError: If `chunk_size` is not a positive integer, or `watchers` are no
            functions.
    """

    chunk_size: int | None
    watchers: Sequence[Observer]
    progress: bool
    errors: ErrorHandling

    def __post_init__(self) -> None:
        if self.chunk_size is not None:
            check_chunk_size(self.chunk_size)
        check_observers(self.watchers)

    @classmethod
    def of(
        cls,
        chunk_size: int | None,
        observers: Sequence[Observer],
        progress: bool,
        on_error: OnErrorLike,
        on_reject: OnReject | None,
    ) -> Self:
        """Read the arguments that callers give.

        Raises:
            ConfigurationError: If one is invalid.
        """
        return cls(chunk_size, observers, progress, ErrorHandling.of(on_error, on_reject))


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch call: the records, where from and where to, the results, and the options.

    Attributes:
        records: The source.
        name: The model's name.
        from_version: Version of the records.
        to_version: Version of the outputs.
        wanted: The results to return: models or data.
        options: The options of the call.

    Raises:
        ConfigurationError: If `records` is a single record or a text.
    """

    records: Iterable[Any]
    name: str
    from_version: VersionLike
    to_version: VersionLike
    wanted: Wanted
    options: BatchOptions

    def __post_init__(self) -> None:
        check_records(self.records)

    @property
    def errors(self) -> ErrorHandling:
        """The handling of records that fail."""
        return self.options.errors

    def observers(self) -> tuple[Observer, ...]:
        """Return the observers of the call, with a progress bar if one is wanted."""
        watchers = tuple(self.options.watchers)
        if not self.options.progress:
            return watchers
        from pyrmute_tasks.engine.progress import bar_over  # calls without a bar do without

        return (*watchers, bar_over(self.records))
