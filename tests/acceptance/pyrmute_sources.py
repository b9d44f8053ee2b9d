"""pyrmute's source distribution, whose documentation and examples the tests run.

pip fetches it, as its configuration says, into `.cache/`, which git ignores; nothing of it is in
the repository. It is executed, so its hash is known beforehand.
"""

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from tests.conftest import ROOT, cannot_run

__all__ = ["VERSION", "NotFetchedError", "fetch", "fetch_or_skip"]

VERSION: Final = "0.11.0"
_SHA256: Final = "a8579d552efbd3e18989fc0d34740e2e02c5aeb2cba988af6b209624639666b4"


class NotFetchedError(Exception):
    """pip could not download the sources, as without a network."""


def fetch() -> Path:
    """Return the folder with pyrmute's sources, downloading them the first time.

    Raises:
        NotFetchedError: If that fails.
    """
    folder = ROOT / ".cache" / f"pyrmute-{VERSION}-{_SHA256[:8]}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            unpacked = _download(Path(scratch))
            try:
                unpacked.rename(folder)
            except OSError:  # another test process was quicker
                if not folder.exists():
                    raise
    return folder


def fetch_or_skip() -> Path:
    """Return the folder with pyrmute's sources; without a network, skip the test, or fail in CI."""
    try:
        return fetch()
    except NotFetchedError as error:
        cannot_run(f"pyrmute's sources could not be fetched: {error}")


def _download(scratch: Path) -> Path:
    wanted = scratch / "requirements.txt"
    wanted.write_text(f"pyrmute=={VERSION} --hash=sha256:{_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-binary", "pyrmute", "--require-hashes"]
    command += ["--requirement", str(wanted), "--dest", str(scratch)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    archive = scratch / f"pyrmute-{VERSION}.tar.gz"
    if ran.returncode or not archive.exists():
        raise NotFetchedError(ran.stderr.strip() or f"pip did not write {archive.name}")
    with tarfile.open(archive) as opened:
        opened.extractall(scratch, filter="data")
    return scratch / f"pyrmute-{VERSION}"
