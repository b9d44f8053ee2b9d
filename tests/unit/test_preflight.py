"""Room for an output: what is refused, what is doubted, and what is said nothing about."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import BaseModel, Field, RootModel, model_serializer

from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.io import preflight
from pyrmute_tasks.io.preflight import check_room, in_bytes, room_at

MIB = 1024 * 1024
Disk = Callable[..., None]


class Narrow(BaseModel):
    a: int = 0


class Wide(BaseModel):
    a_name_of_twenty_chars: int = 0
    another_of_twentychars: int = 0
    hidden: int = Field(default=0, exclude=True)
    long_name_and_short_alias: int = Field(default=0, serialization_alias="s")


class Root(RootModel[list[int]]):
    pass


class OwnWay(BaseModel):
    name_that_is_not_written: int

    @model_serializer
    def write(self) -> int:
        return 1


class OwnJson(Wide):
    def model_dump_json(self, **_: object) -> str:
        return "1"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Let every file system have so much room."""

    def set_up(free_bytes: int, free_files: int | None = 1_000_000) -> None:
        blocks = SimpleNamespace(
            f_bavail=free_bytes // 512,
            f_frsize=512,
            f_files=0 if free_files is None else 2_000_000,
            f_favail=free_files or 0,
        )
        monkeypatch.setattr(os, "statvfs", lambda _: blocks)

    return set_up


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"name": "x"}\n' * 10_000)
    return str(path)


def check(
    source: str,
    model: type[BaseModel] | None = None,
    *,
    by_reference: bool = False,
    limit: int | None = None,
) -> None:
    check_room(f"{source}.out", [source], model=model, by_reference=by_reference, limit=limit)


def test_output_that_fits_is_said_nothing_about(
    disk: Disk, source: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "sample_files", None)  # nor is the source read
    disk(Path(source).stat().st_size * 9, None)
    check(source, Wide)
    assert caplog.text == ""


def test_output_that_may_not_fit_is_doubted(
    disk: Disk, source: str, caplog: pytest.LogCaptureFixture
) -> None:
    disk(Path(source).stat().st_size // 2)
    check(source, Narrow)
    assert f"{source}.out may not fit: the file system of {Path(source).parent}" in caplog.text
    assert "has 68.0 KiB free, and the output takes about 136.7 KiB if it is as" in caplog.text


def test_joining_is_doubted_when_parts_and_output_do_not_fit_together(
    disk: Disk, source: str, caplog: pytest.LogCaptureFixture
) -> None:
    disk(int(Path(source).stat().st_size * 1.5))
    check(source, Narrow)
    assert caplog.text == ""
    check(source, Narrow, by_reference=True)
    assert "up to 273.4 KiB until ranges are joined" in caplog.text


def test_output_whose_field_names_alone_do_not_fit_is_refused(disk: Disk, source: str) -> None:
    disk(200 * 1024)
    check(source, Narrow)
    with pytest.raises(ConfigurationError) as caught:
        check(source, Wide)
    assert str(caught.value) == (
        f"cannot write {source}.out: the file system of {Path(source).parent} has 200.0 KiB free, "
        "and the output takes 307.6 KiB at least, for the names of its fields alone; free some, "
        "or write elsewhere"
    )
    check(source, Wide, limit=1000)


@pytest.mark.parametrize("model", [None, Root, OwnWay, OwnJson])
def test_nothing_is_refused_whose_least_size_is_unknown(
    disk: Disk, source: str, caplog: pytest.LogCaptureFixture, model: type[BaseModel] | None
) -> None:
    disk(10_240)
    check(source, model)
    assert "may not fit" in caplog.text


@pytest.mark.parametrize("model", [Narrow, Wide])
def test_least_size_of_a_line_is_no_more_than_its_size(model: type[BaseModel]) -> None:
    least = preflight._least_line_bytes(model)
    line = len(model().model_dump_json()) + 1
    assert line / 2 < least <= line + 1  # one comma less


def test_missing_inodes_are_refused_or_doubted(
    disk: Disk, source: str, caplog: pytest.LogCaptureFixture
) -> None:
    disk(100 * MIB, 3)
    with pytest.raises(ConfigurationError, match="has inodes left for 3 files only"):
        check(source)
    with open(source, "ab") as file:
        file.truncate(100 * MIB)
    disk(1000 * MIB, 50)
    check_room(f"{source}.out/", [source])
    assert "has inodes left for 50 files, of up to 108" in caplog.text


def test_room_is_that_of_the_folder_behind_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert room_at(tmp_path / "link" / "out.jsonl").folder == str(tmp_path / "real")
    assert room_at(f"{tmp_path}/real/parts/").folder == str(tmp_path / "real")
    with pytest.raises(ConfigurationError, match=r"cannot write .*: No such file or directory"):
        room_at(tmp_path / "gone" / "out.jsonl")


def test_sizes_are_told_in_units() -> None:
    assert [in_bytes(size) for size in (0, 1023, 1536, 5 * MIB, 3 * MIB**2, 2**70)] == [
        "0 bytes",
        "1,023 bytes",
        "1.5 KiB",
        "5.0 MiB",
        "3.0 TiB",
        "1,048,576.0 PiB",
    ]
