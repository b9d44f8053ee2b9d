"""The progress of a run, on stderr."""

import contextlib
from collections.abc import Iterator

from pyrmute_tasks.cli.errors import warnings_through
from pyrmute_tasks.engine.progress import ProgressBar, ProgressOptions

__all__ = ["shown"]


@contextlib.contextmanager
def shown(options: ProgressOptions | None) -> Iterator[tuple[ProgressBar, ...]]:
    """Show a run's progress, with warnings above the bar, which ends with the block.

    Args:
        options: How it is shown; None shows nothing.

    Yields:
        The bar, an observer of the run; none if nothing is shown.
    """
    if options is None:
        yield ()
        return
    bar = ProgressBar(options=options)
    with contextlib.closing(bar), warnings_through(bar.say):
        yield (bar,)
