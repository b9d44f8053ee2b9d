# Above 400 lines: a public façade, whose documentation takes most of them.
"""`AsyncMigrator`: a `Migrator` for asyncio.

A job runs in a thread of its own, which does what it does for any other caller; outputs and the
records of asynchronous sources are handed over between that thread and the event loop.
"""

import asyncio
import weakref
from collections.abc import AsyncIterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic import BaseModel

from pyrmute_tasks.async_job_calls import AsyncJobCalls
from pyrmute_tasks.engine.async_stream import AsyncStream, Records, StreamingCall, run_in_thread
from pyrmute_tasks.engine.batch_arguments import check_records
from pyrmute_tasks.engine.error_policy import OnErrorLike, OnReject
from pyrmute_tasks.engine.events import Observer
from pyrmute_tasks.errors import ConfigurationError, MigratorClosedError
from pyrmute_tasks.migrator import Migrator
from pyrmute_tasks.registry import ModelData
from pyrmute_tasks.versions import VersionLike

__all__ = ["AsyncMigrator", "AsyncStream"]

Model = TypeVar("Model", bound=BaseModel)
Output = TypeVar("Output")


# Above 250 lines: a public façade, whose documentation and annotated arguments take most of them.
class AsyncMigrator(AsyncJobCalls):
    """Runs migrations on a fleet for callers in an event loop.

    Wraps a `Migrator`, and belongs to the event loop it is used in. Nothing here blocks the event
    loop. A task that is cancelled while it waits for outputs withdraws what is pending of its job.

    A source may be asynchronous; it is read in the event loop, at most 256 records ahead of the
    job's window. Any other source is read in a thread, so it must not belong to one, as a cursor
    of sqlite3 does.

    Args:
        migrator: The migrator to use; closed with this.

    Raises:
        ConfigurationError: If it is no `Migrator`.

    Example:
        ```python
        async with AsyncMigrator(Migrator.embedded("examples/flights.py:manager")) as migrator:
            async for flight in migrator.migrate_batch_streaming(rows, "Flight", "1.0.0", "3.0.0"):
                print(flight)
        ```
    """

    def __init__(self, migrator: Migrator) -> None:
        given: object = migrator
        if not isinstance(given, Migrator):
            raise ConfigurationError(
                "AsyncMigrator takes a Migrator, as AsyncMigrator(Migrator.embedded(manager)), not "
                f"a {type(given).__name__}"
            )
        self._migrator = migrator
        self._streams: weakref.WeakSet[AsyncStream[Any]] = weakref.WeakSet()

    # --- life -------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Start the embedded fleet; does nothing for a running one.

        Raises:
            FleetError: If the embedded fleet does not start.
        """
        try:
            await run_in_thread(self._migrator.start)
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close open streams and the `Migrator`; may be called twice."""
        closed = MigratorClosedError(
            "the AsyncMigrator was closed before this stream had ended; read it inside of the "
            "async with block"
        )
        try:
            await asyncio.gather(*(stream.cut(closed) for stream in list(self._streams)))
        finally:  # also if this is cancelled while a stream ends
            await asyncio.shield(run_in_thread(self._migrator.close))

    # --- batches ----------------------------------------------------------------------------

    async def migrate_batch(
        self,
        data_list: Records,
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        *,
        chunk_size: int | None = None,
        observers: Sequence[Observer] = (),
        progress: bool = False,
        on_error: OnErrorLike = "raise",
        on_reject: OnReject | None = None,
    ) -> list[BaseModel]:
        """Migrate and validate many records.

        Args:
            data_list: The records, as `from_version` has them.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the outputs.
            chunk_size: Records a chunk; by default chosen from their size.
            observers: Called with the job's events, in the job's thread.
            progress: Show a progress bar on stderr.
            on_error: ``"skip"`` leaves out records that fail and goes on; an `ErrorPolicy` limits
                how many.
            on_reject: Called with the failure of each record that is skipped, in order, in the
                job's thread.

        Returns:
            The validated models, in the order of the records.

        Raises:
            Exception: As `Migrator.migrate_batch`.

        Example:
            ```python
            users = await migrator.migrate_batch(rows, "User", "1.0.0", "3.0.0")
            ```
        """
        call = partial(
            self._migrator.migrate_batch_streaming,
            name=name,
            from_version=from_version,
            to_version=to_version,
            chunk_size=chunk_size,
            observers=observers,
            progress=progress,
            on_error=on_error,
            on_reject=on_reject,
        )
        return await self._all(call, data_list)

    async def migrate_batch_as(
        self,
        data_list: Records,
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        target_type: type[Model],
        *,
        chunk_size: int | None = None,
        observers: Sequence[Observer] = (),
        progress: bool = False,
        on_error: OnErrorLike = "raise",
        on_reject: OnReject | None = None,
    ) -> list[Model]:
        """Migrate records and validate them as `target_type`.

        Args:
            data_list: The records, as `from_version` has them.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the outputs.
            target_type: The class to validate them as.
            chunk_size: Records a chunk; by default chosen from their size.
            observers: Called with the job's events, in the job's thread.
            progress: Show a progress bar on stderr.
            on_error: ``"skip"`` leaves out records that fail and goes on; an `ErrorPolicy` limits
                how many.
            on_reject: Called with the failure of each record that is skipped, in order, in the
                job's thread.

        Returns:
            The validated models, in the order of the records.

        Raises:
            Exception: As `Migrator.migrate_batch_as`.
        """
        call = partial(
            self._migrator.migrate_batch_streaming_as,
            name=name,
            from_version=from_version,
            to_version=to_version,
            target_type=target_type,
            chunk_size=chunk_size,
            observers=observers,
            progress=progress,
            on_error=on_error,
            on_reject=on_reject,
        )
        return await self._all(call, data_list)

    async def migrate_batch_data(
        self,
        data_list: Records,
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
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
            chunk_size: Records a chunk; by default chosen from their size.
            observers: Called with the job's events, in the job's thread.
            progress: Show a progress bar on stderr.
            on_error: ``"skip"`` leaves out records that fail and goes on; an `ErrorPolicy` limits
                how many.
            on_reject: Called with the failure of each record that is skipped, in order, in the
                job's thread.

        Returns:
            The migrated data, in the order of the records.

        Raises:
            Exception: As `Migrator.migrate_batch_data`.
        """
        call = partial(
            self._migrator.migrate_batch_data_streaming,
            name=name,
            from_version=from_version,
            to_version=to_version,
            chunk_size=chunk_size,
            observers=observers,
            progress=progress,
            on_error=on_error,
            on_reject=on_reject,
        )
        return await self._all(call, data_list)

    # --- streams ----------------------------------------------------------------------------

    def migrate_batch_streaming(
        self,
        data_list: Records,
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        chunk_size: int | None = None,
        *,
        observers: Sequence[Observer] = (),
        progress: bool = False,
        on_error: OnErrorLike = "raise",
        on_reject: OnReject | None = None,
    ) -> AsyncStream[BaseModel]:
        """Migrate and validate records lazily.

        Args:
            data_list: The records, as `from_version` has them, closed when the iteration ends.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the outputs.
            chunk_size: Records a chunk; by default chosen from their size.
            observers: Called with the job's events, in the job's thread.
            progress: Show a progress bar on stderr.
            on_error: ``"skip"`` leaves out records that fail and goes on; an `ErrorPolicy` limits
                how many.
            on_reject: Called with the failure of each record that is skipped, in order, in the
                job's thread.

        Returns:
            The validated models, in the order of the records. Those before a failing record come
            first, then its error is raised, as by `Migrator.migrate_batch_streaming`.

        Example:
            ```python
            async for user in migrator.migrate_batch_streaming(rows, "User", "1.0.0", "3.0.0"):
                await save(user)
            ```
        """
        call = partial(
            self._migrator.migrate_batch_streaming,
            name=name,
            from_version=from_version,
            to_version=to_version,
            chunk_size=chunk_size,
            observers=observers,
            progress=progress,
            on_error=on_error,
            on_reject=on_reject,
        )
        return self._stream(call, data_list)

    def migrate_batch_streaming_as(
        self,
        data_list: Records,
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
    ) -> AsyncStream[Model]:
        """Migrate records lazily and validate them as `target_type`.

        Args:
            data_list: The records, as `from_version` has them, closed when the iteration ends.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the outputs.
            target_type: The class to validate them as.
            chunk_size: Records a chunk; by default chosen from their size.
            observers: Called with the job's events, in the job's thread.
            progress: Show a progress bar on stderr.
            on_error: ``"skip"`` leaves out records that fail and goes on; an `ErrorPolicy` limits
                how many.
            on_reject: Called with the failure of each record that is skipped, in order, in the
                job's thread.

        Returns:
            The validated models; otherwise as `migrate_batch_streaming`.
        """
        call = partial(
            self._migrator.migrate_batch_streaming_as,
            name=name,
            from_version=from_version,
            to_version=to_version,
            target_type=target_type,
            chunk_size=chunk_size,
            observers=observers,
            progress=progress,
            on_error=on_error,
            on_reject=on_reject,
        )
        return self._stream(call, data_list)

    def migrate_batch_data_streaming(
        self,
        data_list: Records,
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        chunk_size: int | None = None,
        *,
        observers: Sequence[Observer] = (),
        progress: bool = False,
        on_error: OnErrorLike = "raise",
        on_reject: OnReject | None = None,
    ) -> AsyncStream[ModelData]:
        """Migrate records lazily without validation.

        Args:
            data_list: The records, as `from_version` has them, closed when the iteration ends.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the outputs.
            chunk_size: Records a chunk; by default chosen from their size.
            observers: Called with the job's events, in the job's thread.
            progress: Show a progress bar on stderr.
            on_error: ``"skip"`` leaves out records that fail and goes on; an `ErrorPolicy` limits
                how many.
            on_reject: Called with the failure of each record that is skipped, in order, in the
                job's thread.

        Returns:
            The migrated data; otherwise as `migrate_batch_streaming`.
        """
        call = partial(
            self._migrator.migrate_batch_data_streaming,
            name=name,
            from_version=from_version,
            to_version=to_version,
            chunk_size=chunk_size,
            observers=observers,
            progress=progress,
            on_error=on_error,
            on_reject=on_reject,
        )
        return self._stream(call, data_list)

    # --- details ------------------------------------------------------------------------------

    def _stream(self, call: StreamingCall[Output], records: Records) -> AsyncStream[Output]:
        if not isinstance(records, AsyncIterable):
            check_records(records)  # before a thread reads them
        stream = AsyncStream(call, records)
        self._streams.add(stream)
        return stream

    async def _all(self, call: StreamingCall[Output], records: Records) -> list[Output]:
        async with self._stream(call, records) as stream:
            return [output async for output in stream]
