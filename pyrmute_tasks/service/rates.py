"""A rate over time, in at most 120 columns however long a job takes."""

from dataclasses import dataclass
from typing import Final

__all__ = ["RateOverTime", "RateTally"]

_FIRST_WIDTH_S: Final = 60
_MOST_COLUMNS: Final = 120


@dataclass(frozen=True, slots=True)
class RateOverTime:
    """Records over time.

    Attributes:
        since: When the first column begins, in seconds since 1970.
        column_s: How long a column is, in seconds: a minute, or twice that, four times …
        records: Records of each column.
    """

    since: float
    column_s: int
    records: tuple[int, ...]

    @property
    def per_minute(self) -> tuple[float, ...]:
        """Records a minute in each column."""
        return tuple(each * 60 / self.column_s for each in self.records)


class RateTally:
    """Counts records over time; columns become twice as long when there are too many."""

    def __init__(self) -> None:
        self._column_s = _FIRST_WIDTH_S
        self._columns: dict[int, int] = {}

    def add(self, at: float, records: int) -> None:
        """Count records.

        Args:
            at: When, in seconds since 1970.
            records: How many.
        """
        column = int(at) // self._column_s
        self._columns[column] = self._columns.get(column, 0) + records
        while max(self._columns) - min(self._columns) >= _MOST_COLUMNS:
            self._widen()

    def _widen(self) -> None:
        self._column_s *= 2
        wider: dict[int, int] = {}
        for column, records in self._columns.items():
            wider[column // 2] = wider.get(column // 2, 0) + records
        self._columns = wider

    def over_time(self) -> RateOverTime:
        """Return what was counted, from the first column to the last."""
        if not self._columns:
            return RateOverTime(0.0, self._column_s, ())
        first, last = min(self._columns), max(self._columns)
        records = tuple(self._columns.get(column, 0) for column in range(first, last + 1))
        return RateOverTime(float(first * self._column_s), self._column_s, records)
