"""Outputs: their one writer, replaced files, leftovers."""

import contextlib
import errno
import itertools
import json
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from pyrmute_tasks.errors import ConfigurationError, OutputInUseError
from pyrmute_tasks.io import output_lock, output_place
from pyrmute_tasks.io.output_file import OutputFile, OutputStream, open_output
from pyrmute_tasks.io.output_lock import OutputLock
from pyrmute_tasks.processes import place_here
from tests.conftest import ROOT, wait_until


def opened(path: Path | str, **options: Any) -> Any:
    return open_output(path, job="0123abcd", **options)


def write(path: Path | str, lines: bytes = b"new\n", **options: Any) -> None:
    with opened(path, **options) as output:
        output.write(lines)
        output.commit()


def partial_of(path: Path) -> Path:
    [partial] = path.parent.glob(f".{path.name}.*.partial")
    return partial


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"old")
    with opened(path) as output:
        output.write(b"new\n")
        assert path.read_bytes() == b"old"
        output.commit()
    assert path.read_bytes() == b"new\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_a_job_that_fails_leaves_the_target_alone(tmp_path: Path, keep: bool, fails: bool) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"old")
    output = opened(path, keep_partial=keep)
    try:
        with output:
            output.write(b"some\n")
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    assert path.read_bytes() == b"old"
    kept = tmp_path / "out.jsonl.partial"
    assert output.kept_path == (kept if keep else None)
    assert not keep or kept.read_bytes() == b"some\n"
    assert sorted(tmp_path.iterdir()) == ([path, kept] if keep else [path])


def test_a_kept_partial_file_replaces_no_link(tmp_path: Path) -> None:
    path, victim = tmp_path / "out.jsonl", tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "out.jsonl.partial").symlink_to(victim)
    with opened(path, keep_partial=True) as output:
        output.write(b"some\n")
    assert victim.read_bytes() == b"precious"
    assert (tmp_path / "out.jsonl.partial").is_symlink()
    assert output.kept_path.read_bytes() == b"some\n"


def test_unwritable_target_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="it is a directory"):
        opened(tmp_path)
    with pytest.raises(ConfigurationError, match="No such file or directory"):
        write(tmp_path / "a" / "b")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ConfigurationError, match="Too many levels of symbolic links"):
        opened(tmp_path / "loop")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        with pytest.raises(ConfigurationError, match="it is a socket"):
            opened(tmp_path / "socket")


def test_the_mode_of_a_target_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.touch()
    for mode in (0o600, 0o644, 0o660, 0o400):
        path.chmod(mode)
        with opened(path) as output:
            assert stat.S_IMODE(partial_of(path).stat().st_mode) == mode
            output.commit()
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_new_file_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "out.jsonl")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.jsonl").stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_the_owner_of_a_target_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.touch()
    os.chown(path, 1234, 4321)
    write(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 4321)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_owner_that_cannot_be_kept_is_reported() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:  # where others may go
        path = Path(directory) / "out.jsonl"
        path.write_bytes(b"old")
        path.parent.chmod(0o777)
        os.seteuid(65534)
        try:
            with pytest.raises(ConfigurationError, match="it belongs to user 0"):
                write(path)
        finally:
            os.seteuid(0)
        assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("exists", [True, False])
def test_the_file_behind_a_link_is_replaced(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "real.jsonl"
    if exists:
        path.write_bytes(b"old")
    (tmp_path / "middle").symlink_to("data/real.jsonl")
    (tmp_path / "link").symlink_to("middle")
    with opened(tmp_path / "link") as output:
        output.write(b"new\n")
        with pytest.raises(OutputInUseError):
            write(path)
        output.commit()
    assert path.read_bytes() == b"new\n"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "middle").is_symlink()
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("how", ["same", "dots", "link", "hard link"])
def test_a_target_that_is_the_source_is_refused(tmp_path: Path, how: str) -> None:
    source, other = tmp_path / "in.jsonl", tmp_path / "other.jsonl"
    source.write_bytes(b"{}\n")
    if how == "link":
        other.symlink_to(source)
    elif how == "hard link":
        other.hardlink_to(source)
    target = {"same": source, "dots": tmp_path / ".." / tmp_path.name / "in.jsonl"}.get(how, other)
    with pytest.raises(ConfigurationError, match="it is the same file as"):
        opened(target, source=source)
    assert source.read_bytes() == b"{}\n"


def test_existing_file_needs_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write(path, b"old\n", overwrite=False)
    with pytest.raises(ConfigurationError, match="it exists; add --overwrite"):
        opened(path, overwrite=False)
    assert path.read_bytes() == b"old\n"


@pytest.mark.parametrize("links", [True, False])
def test_file_that_appears_during_a_run_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "out.jsonl"
    output = opened(path, overwrite=False)
    with pytest.raises(ConfigurationError, match="has appeared while this ran"), output:
        output.write(b"new\n")
        path.write_bytes(b"somebody's")
        output.commit()
    assert path.read_bytes() == b"somebody's"
    assert output.kept_path.read_bytes() == b"new\n"


def no_links(*_: object) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_an_interrupt_while_a_file_opens_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fdopen", interrupt)
    with pytest.raises(KeyboardInterrupt), opened(tmp_path / "out.jsonl"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_output_is_complete_while_the_disk_is_busy(tmp_path: Path) -> None:
    blocks = [bytes([65 + number]) * (5 * 1024 * 1024) + b"\n" for number in range(6)]
    with opened(tmp_path / "out.jsonl") as output:
        for block in blocks:
            output.write(memoryview(block))
        output.commit()
    assert (tmp_path / "out.jsonl").read_bytes() == b"".join(blocks)


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Limit files to 10 MiB, which looks like a full disk to a writer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10 * 1024 * 1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_disk")
def test_full_disk_is_reported(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"cannot write .*: File too large"),
        opened(tmp_path / "out.jsonl") as output,
    ):
        for _ in range(11):
            output.write(b"x" * (1024 * 1024))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_disk")
@pytest.mark.parametrize("line_bytes", [1_000_003, 7])
def test_kept_partial_of_a_full_disk_has_whole_lines(tmp_path: Path, line_bytes: int) -> None:
    path, line = tmp_path / "out.jsonl", b"x" * (line_bytes - 1) + b"\n"
    with pytest.raises(ConfigurationError), opened(path, keep_partial=True) as output:
        while True:
            output.write(line * (1_500_000 // line_bytes + 1))
    kept = path.with_name("out.jsonl.partial").read_bytes()
    assert len(kept) > 9_000_000
    assert kept == line * (len(kept) // line_bytes)


@pytest.mark.parametrize("name", ["there", "new"])
def test_a_path_that_ends_with_a_slash_is_not_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "there").write_text("old")
    with pytest.raises(ConfigurationError, match="Is a directory"):
        open_output(f"{tmp_path / name}/", job="0")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_circular_links_are_reported(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for path in (tmp_path / "a", tmp_path / "a" / "out.jsonl"):
        with pytest.raises(ConfigurationError, match="Too many levels of symbolic links"):
            write(path)
        assert not output_place.is_stream(path)


def test_very_long_name_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 127)
    write(path)
    assert path.read_bytes() == b"new\n"


# --- streams ----------------------------------------------------------------------------------


def test_a_named_pipe_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    block = b"x" * 300_000 + b"\n"  # more than a pipe holds
    write(path, block, overwrite=False)
    reader.join()
    assert read == [block]
    assert stat.S_ISFIFO(path.lstat().st_mode)
    assert list(tmp_path.iterdir()) == [path]


def test_a_device_is_written_to() -> None:
    output = opened("/dev/null", overwrite=False, source="/dev/null")
    assert isinstance(output, OutputStream)
    with output:
        output.write(b"{}\n")
        output.commit()
    with (
        pytest.raises(ConfigurationError, match="No space left on device"),
        opened("/dev/full") as full,
    ):
        full.write(b"{}\n")


def test_closed_pipe_is_reported() -> None:
    reading, writing = os.pipe()
    with (
        pytest.raises(ConfigurationError, match="Broken pipe"),
        opened(f"/dev/fd/{writing}") as output,
    ):
        os.close(reading)
        output.write(b"{}\n")
    os.close(writing)


def test_nonblocking_pipe_is_waited_for() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    block = b"x" * 1_000_000
    read: list[bytes] = []

    def read_all() -> None:
        with open(reading, "rb") as file:
            read.append(file.read())

    thread = threading.Thread(target=read_all)
    thread.start()
    write(f"/dev/fd/{writing}", block)
    os.close(writing)
    thread.join()
    assert read == [block]


def test_dev_fd_target_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "redirected"
    with path.open("wb") as file:
        file.write(b"before\n")
        file.flush()
        (tmp_path / "link").symlink_to(f"/proc/self/fd/{file.fileno()}")
        write(tmp_path / "link", b"new\n", overwrite=False)
        file.write(b"after\n")
    assert path.read_bytes() == b"before\nnew\nafter\n"


# --- one writer -------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pyrmute_tasks.io.output_file import open_output
with open_output(sys.argv[1], job="feedbeef") as output:
    output.write(b"theirs\\n")
    print("holds", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[Path, "subprocess.Popen[str]"]]:
    """A path that another process writes to."""
    path = tmp_path / "out.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        yield path, process
    finally:
        process.kill()
        process.communicate()


def test_second_writer_is_rejected_at_once(held: tuple[Path, Any]) -> None:
    path, process = held
    began = time.monotonic()
    with pytest.raises(OutputInUseError) as caught:
        write(path)
    assert time.monotonic() - began < 1.0
    shown = str(caught.value)
    who = f"job feedbeef, host {socket.gethostname()}, process {process.pid}, since 2"
    assert f"another run ({who}" in shown
    assert f"is writing {path}" in shown
    assert len(list(path.parent.iterdir())) == 2  # the lock and the partial file


def test_next_writer_removes_leftovers_of_a_killed_one(held: tuple[Path, Any]) -> None:
    path, process = held
    process.kill()  # and nobody has asked for its status yet: it is a zombie
    wait_until(lambda: "Z" in Path(f"/proc/{process.pid}/stat").read_text(), "it has died")
    assert len(list(path.parent.iterdir())) == 2
    write(path)
    assert path.read_bytes() == b"new\n"
    assert list(path.parent.iterdir()) == [path]


def test_a_writer_that_is_frozen_keeps_its_output(held: tuple[Path, Any]) -> None:
    path, process = held
    process.send_signal(signal.SIGSTOP)
    lock = path.with_name(".out.jsonl.lock")
    os.utime(lock, (0, 0))  # on this host its process counts, and not when it was last touched
    with pytest.raises(OutputInUseError):
        write(path)


def lock_of(path: Path, **changes: object) -> Path:
    """Create the lock of another host's run beside a path."""
    told = {
        "token": "0" * 16,
        "job": "feedbeef",
        "host": "elsewhere",
        "place": "another boot",
        "pid": 1,
        "started": "1",
        "since": "2026-01-01 00:00:00 UTC",
    }
    lock = path.with_name(f".{path.name}.lock")
    lock.write_text(json.dumps(told | changes))
    return lock


def test_a_lock_of_another_host_holds_while_it_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    lock = lock_of(path)
    with pytest.raises(OutputInUseError, match="job feedbeef, host elsewhere"):
        write(path)
    old = time.time() - output_lock.SILENT_S - 1
    os.utime(lock, (old, old))
    write(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_from_the_future_holds_a_minute_and_no_longer(tmp_path: Path) -> None:
    """The clock was set back, or a host's was wrong."""
    path = tmp_path / "out.jsonl"
    lock = lock_of(path)
    later = time.time() + 86_400
    os.utime(lock, (later, later))
    with pytest.raises(OutputInUseError):
        write(path)
    assert lock.stat().st_mtime < time.time() + output_lock.SILENT_S
    old = lock.stat().st_mtime - output_lock.SILENT_S - 1
    os.utime(lock, (old, old))
    write(path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"token": 1}', "x" * 10_000])
def test_unreadable_lock_holds_for_a_while(tmp_path: Path, content: str) -> None:
    path = tmp_path / "out.jsonl"
    lock = path.with_name(".out.jsonl.lock")
    lock.write_text(content)
    with pytest.raises(OutputInUseError, match="another run is writing"):
        write(path)
    os.utime(lock, (0, 0))
    write(path)


def test_control_characters_in_a_lock_are_not_printed(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    lock_of(path, job="x\n\x1b[31m")
    with pytest.raises(OutputInUseError) as caught:
        write(path)
    assert str(caught.value).isprintable()


def test_lock_that_was_out_of_reach_when_it_was_released_holds_nothing(tmp_path: Path) -> None:
    data, away = tmp_path / "data", tmp_path / "away"
    data.mkdir()
    lock = OutputLock(data / "out.jsonl", "job")
    lock.acquire()
    data.rename(away)
    lock.release()
    away.rename(data)
    assert (data / ".out.jsonl.lock").exists()
    write(data / "out.jsonl", b"1\n")  # by the same process
    assert [each.name for each in data.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize(
    ("job", "epoch", "may"),
    [("job", 3, True), ("job", 2, False), ("job", 0, False), ("b", 3, False)],
)
def test_newer_epoch_of_a_job_has_the_lock_of_an_older_one(
    tmp_path: Path, job: str, epoch: int, may: bool
) -> None:
    path = tmp_path / "out.jsonl"
    frozen = OutputLock(path, "job", 2)
    frozen.acquire()
    lock = OutputLock(path, job, epoch)
    if may:
        lock.acquire()
        with pytest.raises(OutputInUseError):
            frozen.confirm()
        frozen.release()
        lock.confirm()
        lock.release()
    else:
        with pytest.raises(OutputInUseError, match="another run"):
            lock.acquire()
        frozen.confirm()
        frozen.release()
    assert not list(tmp_path.iterdir())


def test_reused_process_id_holds_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    lock_of(path, place=place_here(), pid=os.getpid(), started="1")
    write(path)


@pytest.mark.parametrize("kind", ["link", "directory", "pipe"])
def test_foreign_file_in_the_locks_place_is_reported(tmp_path: Path, kind: str) -> None:
    path, lock = tmp_path / "out.jsonl", tmp_path / ".out.jsonl.lock"
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    ways: dict[str, Callable[[], None]] = {
        "link": lambda: lock.symlink_to(victim),
        "directory": lock.mkdir,
        "pipe": lambda: os.mkfifo(lock),
    }
    ways[kind]()
    with pytest.raises(ConfigurationError, match=r"\.lock is in the way"):
        write(path)
    assert victim.read_bytes() == b"precious"
    assert sorted(tmp_path.iterdir()) == [lock, victim]


def test_a_lock_works_without_hard_links(held: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path, process = held
    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(OutputInUseError, match="job feedbeef"):
        write(path)
    process.kill()
    process.wait()
    with opened(path) as output:
        with pytest.raises(OutputInUseError, match="job 0123abcd"):
            write(path)
        output.write(b"new\n")
        output.commit()
    assert list(path.parent.iterdir()) == [path]


def test_a_writer_whose_output_was_taken_over_publishes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"old")
    with (
        pytest.raises(
            OutputInUseError, match=r"another run \(job feedbeef, .*\) has taken it over"
        ),
        opened(path) as output,
    ):
        output.write(b"mine\n")
        lock_of(path)
        output.commit()
    assert path.read_bytes() == b"old"
    assert path.with_name(".out.jsonl.lock").exists()  # it is the other's
    path.with_name(".out.jsonl.lock").unlink()
    monkeypatch.setattr(output_lock, "BEAT_EVERY_S", 0.01)
    with pytest.raises(OutputInUseError, match=r"lock .* was removed"), opened(path) as output:
        path.with_name(".out.jsonl.lock").unlink()
        wait_until(lambda: output._lock._lost, "it has noticed")
        output.write(b"mine\n")


def test_a_lock_that_cannot_be_read_is_not_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disconnected(path: object, *_: object) -> int:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), path)

    with (
        pytest.raises(ConfigurationError, match="Transport endpoint is not connected"),
        opened(tmp_path / "out.jsonl") as output,
        monkeypatch.context() as patch,
    ):
        patch.setattr(os, "open", disconnected)
        output.commit()


def test_a_lock_is_touched_while_it_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_lock, "BEAT_EVERY_S", 0.01)
    path = tmp_path / "out.jsonl"
    with opened(path):
        lock = path.with_name(".out.jsonl.lock")
        os.utime(lock, (0, 0))
        wait_until(lambda: lock.stat().st_mtime > 0, "it is touched")


def test_fork_keeps_the_parents_output(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with opened(path) as output:
        child = os.fork()
        if child == 0:
            output.__exit__(None, None, None)
            os._exit(0)
        os.waitpid(child, 0)
        output.write(b"new\n")
        output.commit()
    assert path.read_bytes() == b"new\n"


CALLS: Final = ("open", "write", "link", "unlink", "close", "fstat")


def is_killed(path: Path, calls: int, names: Sequence[str] = CALLS) -> bool:
    """Take the lock in a process that dies after so many of these system calls; True if it did."""

    def counted(call: Any) -> Any:
        def do(*args: Any, **options: Any) -> Any:
            nonlocal calls
            if calls == 0:
                os._exit(1)
            calls -= 1
            return call(*args, **options)

        return do

    child = os.fork()
    if child == 0:
        try:
            for name in names:
                setattr(os, name, counted(getattr(os, name)))
            with contextlib.suppress(OutputInUseError):
                OutputLock(path, "job").acquire()
            os._exit(0)
        finally:
            os._exit(2)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status != 2
    return status == 1


class Contest:
    """Writers that all find an abandoned lock, at the same time."""

    def __init__(self, path: Path, writers: int, killed: int) -> None:
        self.path = path
        self.most = 0
        self.won: list[int] = []
        self._holding = 0
        self._counting = threading.Lock()
        self._barrier = threading.Barrier(writers)
        lock_of(path, place=place_here(), pid=os.getpid(), started="1")
        for _ in range(killed):
            assert is_killed(path, 0, ["unlink"]), "with the right to remove it"
        threads = [threading.Thread(target=self._go, args=(number,)) for number in range(writers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _go(self, number: int) -> None:
        self._barrier.wait()
        with contextlib.suppress(OutputInUseError), opened(self.path) as output:
            self._count(1)
            output.write(b"%d\n" % number)
            time.sleep(0.001)
            self._count(-1)
            output.commit()
            self.won.append(number)

    def _count(self, more: int) -> None:
        with self._counting:
            self._holding += more
            self.most = max(self.most, self._holding)


@pytest.mark.parametrize("killed", [0, 1, 2])
def test_one_of_many_writers_takes_over_from_killed_ones(tmp_path: Path, killed: int) -> None:
    path = tmp_path / "out.jsonl"
    for _ in range(15):
        contest = Contest(path, writers=8, killed=killed)
        assert contest.won
        assert contest.most == 1
        assert int(path.read_bytes()) in contest.won
        assert list(tmp_path.iterdir()) == [path]
        path.unlink()


@pytest.mark.parametrize("kills", [1, 2, 3])
def test_writer_killed_at_any_call_is_replaced_at_once(tmp_path: Path, kills: int) -> None:
    """Also while it removes the lock of one that was killed before."""
    path = tmp_path / "out.jsonl"
    for calls in itertools.count():
        lock_of(path, place=place_here(), pid=os.getpid(), started="1")
        has_died = [is_killed(path, calls) for _ in range(kills)]
        write(path)
        left = set(tmp_path.iterdir()) - {path}
        assert not any(file.stat().st_size for file in left), "files that name their run"
        assert all(re.fullmatch(r"\.out\.jsonl\.\w{16}\.lock", file.name) for file in left)
        if not any(has_died):
            break
    assert calls > 10


def test_output_kinds(tmp_path: Path) -> None:
    assert isinstance(opened(tmp_path / "x"), OutputFile)
    assert output_place.is_stream("/dev/stdout")
    assert not output_place.is_stream(tmp_path / "x")
