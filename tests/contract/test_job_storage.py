"""The contract of a job's storage: a real directory, and the simulated disk."""

from pathlib import Path

import pytest

from pyrmute_tasks.jobs.storage import FolderStorage, Storage
from tests.unit.simulated_disk import Disk, SimulatedStorage


@pytest.fixture(params=["folder", "simulated"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        (tmp_path / "parts").mkdir()
        return FolderStorage(tmp_path)
    return SimulatedStorage(Disk())


def write(storage: Storage, name: str, data: bytes) -> None:
    file = storage.create(name)
    file.append(data)
    file.sync()
    file.close()


def test_file_grows_at_its_end(storage: Storage) -> None:
    file = storage.create("a")
    file.append(b"one ")
    file.append(memoryview(b"two"))
    file.sync()
    assert storage.read("a") == b"one two"
    assert storage.size("a") == 7
    file.append(b"!")
    file.sync()
    file.close()
    file.close()
    assert storage.read("a") == b"one two!"


def test_read_returns_available_bytes(storage: Storage) -> None:
    write(storage, "parts/a", b"0123456789")
    assert storage.read("parts/a", 3, 4) == b"3456"
    assert storage.read("parts/a", 8, 100) == b"89"
    assert storage.read("parts/a", 8) == b"89"
    assert storage.read("parts/a", 20, 5) == b""


def test_file_is_created_once(storage: Storage) -> None:
    write(storage, "a", b"first")
    with pytest.raises(FileExistsError):
        storage.create("a")
    assert storage.read("a") == b"first"


def test_link_never_replaces(storage: Storage) -> None:
    write(storage, "a", b"a")
    write(storage, "b", b"b")
    with pytest.raises(FileExistsError):
        storage.link("a", "b")
    assert storage.read("b") == b"b"
    storage.link("a", "c")
    storage.remove("a")
    assert storage.read("c") == b"a"


def test_linked_file_can_still_be_appended_to(storage: Storage) -> None:
    file = storage.create("candidate")
    storage.link("candidate", "log.1")
    storage.remove("candidate")
    file.append(b"line")
    file.sync()
    assert storage.read("log.1") == b"line"
    file.close()


def test_replace_takes_a_name_over(storage: Storage) -> None:
    write(storage, "a", b"new")
    write(storage, "b", b"old")
    storage.replace("a", "b")
    assert storage.read("b") == b"new"
    assert storage.names() in (["b"], ["b", "parts"], ["parts", "b"])


def test_names_are_those_of_one_folder(storage: Storage) -> None:
    write(storage, "a", b"")
    write(storage, "parts/b", b"")
    assert storage.names("parts") == ["b"]
    assert "a" in storage.names()
    assert "b" not in storage.names()


def test_sync_and_touch_change_no_contents(storage: Storage) -> None:
    write(storage, "parts/a", b"data")
    storage.sync("parts/a")
    storage.sync_folder()
    storage.sync_folder("parts")
    before = storage.changed_ns("parts/a")
    storage.touch("parts/a")
    assert storage.changed_ns("parts/a") >= before
    assert storage.read("parts/a") == b"data"


@pytest.mark.parametrize("call", ["read", "size", "sync", "remove", "touch", "changed_ns"])
def test_missing_file_is_an_error(storage: Storage, call: str) -> None:
    with pytest.raises(FileNotFoundError):
        getattr(storage, call)("missing")


def test_folder_storage_follows_no_links(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"secret")
    (tmp_path / "link").symlink_to("victim")
    storage = FolderStorage(tmp_path)
    with pytest.raises(OSError, match="link"):
        storage.read("link")
    with pytest.raises(FileExistsError):
        storage.create("link")
