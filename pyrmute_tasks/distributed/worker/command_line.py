"""The command line of Celery's worker, with the options that our tasks need."""

from typing import Final

__all__ = ["worker_arguments"]

_ARGUMENTS: Final = ("--without-gossip", "--without-mingle")


def worker_arguments(name: str, concurrency: int, loglevel: str = "WARNING") -> list[str]:
    """Return the command line of Celery's worker with the options that our tasks need.

    Gossip and mingle are chatter between workers that nothing here uses. Celery's own
    heartbeat stays on: Flower takes a worker without one for dead.

    Args:
        name: Node name, unique among the workers of the queue.
        concurrency: Children that run chunks.
        loglevel: As Celery names them.
    """
    options = [f"--hostname={name}", f"--concurrency={concurrency}", f"--loglevel={loglevel}"]
    return ["worker", *_ARGUMENTS, "--pool=prefork", *options]
