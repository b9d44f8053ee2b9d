"""The outputs of a streaming call, with the report of its job."""

from collections.abc import Generator
from types import TracebackType
from typing import Any, TypeVar

from pyrmute_tasks.engine.job_report import JobReport
from pyrmute_tasks.engine.job_tally import JobTally

__all__ = ["Stream"]

Output_co = TypeVar("Output_co", covariant=True)


class Stream(Generator[Output_co, None, None]):
    """The outputs of a streaming call, in the order of its records.

    A generator: iterate over it, call ``next`` on it, or ``close`` it to cancel the rest. Nothing
    is read or run before the first output is requested.

    Args:
        outputs: The outputs.
        tally: Counts them.

    Example:
        ```python
        users = migrator.migrate_batch_streaming(rows, "User", "1.0.0", "2.0.0")
        for user in users:
            save(user)
        print(users.report.records_per_s)
        ```
    """

    __slots__ = ("_outputs", "_tally")

    def __init__(self, outputs: Generator[Output_co, None, None], tally: JobTally) -> None:
        self._outputs = outputs
        self._tally = tally

    @property
    def report(self) -> JobReport:
        """The report of this call's job, as of now; final once the stream has ended."""
        return self._tally.report()

    def __iter__(self) -> Generator[Output_co, None, None]:
        return self._outputs  # a loop runs the generator itself, at its speed

    def __next__(self) -> Output_co:
        return next(self._outputs)

    def send(self, value: None, /) -> Output_co:
        """Return the next output; a stream takes no values.

        Args:
            value: None.

        Returns:
            The next output.

        Raises:
            StopIteration: At the end.
            BaseException: As the call that made the stream says.
        """
        return self._outputs.send(value)

    def throw(
        self,
        kind: Any,
        value: Any = None,
        traceback: TracebackType | None = None,
        /,
    ) -> Output_co:
        """Raise an exception at the stream's position, which cancels the rest.

        Args:
            kind: The exception.
            value: Its value, in Python's older form.
            traceback: Its traceback, in Python's older form.

        Returns:
            Nothing: the exception comes back.

        Raises:
            BaseException: The exception.
        """
        error = kind
        if isinstance(kind, type):
            error = value if isinstance(value, kind) else kind() if value is None else kind(value)
        if traceback is not None:
            error = error.with_traceback(traceback)
        return self._outputs.throw(error)

    def close(self) -> None:
        """Cancel the rest and close the source; does nothing after the end.

        Raises:
            Exception: From closing the source.
        """
        self._outputs.close()
