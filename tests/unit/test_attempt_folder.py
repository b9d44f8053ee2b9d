"""The folder of attempts: made whole or not at all, and read by what it is, not by its name."""

import os
from pathlib import Path

import pytest

from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.io.attempt_folder import AttemptFolder
from pyrmute_tasks.ranges.frames import Piece

PIECE = Piece(0, 10, "0-cafe", 3, records_in=1, records_out=1, lines=1)


def write_attempt(folder: Path, text: bytes = b"{}\n") -> None:
    (folder / PIECE.attempt).write_bytes(text)


def test_folder_goes_with_what_is_in_it(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    with AttemptFolder(tmp_path / "job") as folder:
        write_attempt(folder.path)
        assert (folder.path / "nonce").read_text() == folder.nonce
    assert not list(tmp_path.iterdir())
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before


def test_folder_whose_nonce_cannot_be_written_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", no_space)
        with pytest.raises(ConfigurationError, match="No space left"):
            AttemptFolder(tmp_path / "job").__enter__()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("is_link", [False, True])
def test_folder_put_in_its_place_is_not_read(tmp_path: Path, is_link: bool) -> None:
    forged = tmp_path / "forged"
    forged.mkdir()
    write_attempt(forged, b"[]\n")
    with AttemptFolder(tmp_path / "job") as folder:
        write_attempt(folder.path)
        folder.path.rename(tmp_path / "away")
        if is_link:
            folder.path.symlink_to(forged)
        else:
            forged.rename(folder.path)
        with folder.opened(PIECE) as descriptor:
            assert os.read(descriptor, 10) == b"{}\n"
        folder.move(PIECE, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == b"{}\n"


def test_attempt_that_is_another_file_is_refused(tmp_path: Path) -> None:
    with AttemptFolder(tmp_path / "job") as folder:
        (tmp_path / "other").write_bytes(b"{}\n")
        (folder.path / PIECE.attempt).symlink_to(tmp_path / "other")
        with pytest.raises(ConfigurationError), folder.opened(PIECE):
            pass
        with pytest.raises(ConfigurationError, match="not what its worker wrote"):
            folder.move(PIECE, tmp_path / "part")
        (folder.path / PIECE.attempt).unlink()
        write_attempt(folder.path, b"{}\n{}\n")
        with pytest.raises(ConfigurationError, match="6 bytes instead of 3"):
            folder.move(PIECE, tmp_path / "part")
    assert not (tmp_path / "part").exists()


def test_fork_keeps_the_parents_folder(tmp_path: Path) -> None:
    with AttemptFolder(tmp_path / "job") as folder:
        child = os.fork()
        if not child:
            folder.__exit__(None, None, None)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert folder.path.exists()
