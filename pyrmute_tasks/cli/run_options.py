"""The arguments of `pyrmute-tasks run`."""

from dataclasses import dataclass
from typing import Final

__all__ = ["RunOptions"]

_STDOUT: Final = "/dev/stdout"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The arguments of the command; its help says what they are."""

    source: str
    target: str
    manager: str
    name: str
    from_version: str
    to_version: str
    workers: int | None
    broker: str | None
    store: str | None
    queue: str | None
    chunk_size: int | None
    limit: int | None
    by_reference: str
    max_line_bytes: int | None
    overwrite: bool
    hold: bool
    backup: bool
    keep_partial: bool
    retry_on: tuple[str, ...]
    attempts: int | None
    wait_s: float | None
    stall_s: float | None
    on_error: str
    rejects: str | None
    rejects_with_records: bool
    max_errors: str | None
    resume: bool
    restart: bool
    accept_code: bool
    no_log: bool
    dry_run: bool
    include_records: bool
    max_rate: float | None
    throttle: str | None
    stats_s: float | None
    as_json: bool
    quiet: bool

    @property
    def is_stdin(self) -> bool:
        """Whether standard input is read."""
        return self.source == "-"

    @property
    def into(self) -> str:
        """The output's path."""
        return _STDOUT if self.target == "-" else self.target

    @property
    def rejects_path(self) -> str | None:
        """The path of the file of rejects; None for none."""
        return _STDOUT if self.rejects == "-" else self.rejects

    @property
    def replaces(self) -> bool:
        """Whether an output that exists may be replaced, also once more by the same job."""
        return self.overwrite or self.resume
