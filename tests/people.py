"""A small chain of versions with every way to fail, importable by workers."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import BaseModel, field_validator

from pyrmute_tasks import ModelData, ModelManager

manager = ModelManager()


@manager.model("Person", "1.0.0")
class PersonV1(BaseModel):
    name: str
    age: int


@manager.model("Person", "2.0.0")
class PersonV2(BaseModel):
    first_name: str
    last_name: str
    age: int


@manager.model("Person", "3.0.0")
class PersonV3(BaseModel):
    first_name: str
    last_name: str
    age: int
    adult: bool

    @field_validator("age")
    @classmethod
    def plausible(cls, age: int) -> int:
        if age > 150:
            raise ValueError(f"implausible age {age}")
        return age


@manager.migration("Person", "1.0.0", "2.0.0")
def split_name(data: ModelData) -> ModelData:
    obey(data["name"])
    first, _, last = data["name"].partition(" ")
    return {"first_name": first, "last_name": last, "age": data["age"]}


@manager.migration("Person", "2.0.0", "3.0.0")
def add_adult(data: ModelData) -> ModelData:
    if data["age"] == -1:
        raise LookupError(f"no age for {data['first_name']}")
    return {**data, "adult": data["age"] >= 18}


def obey(name: str) -> None:
    """Act on a record's name: some tests need a step that takes time or dies."""
    verb, _, argument = name.partition(":")
    deed = DEEDS.get(verb)
    if deed is not None:
        deed(argument)


def sleep(seconds: str) -> None:
    time.sleep(float(seconds.split(maxsplit=1)[0]))


def touchy(seconds: str) -> None:
    """Raise an error of its own for any interruption of a sleep."""
    try:
        sleep(seconds)
    except BaseException as error:
        raise ValueError("disturbed") from error


def wait_for(path_and_seconds: str) -> None:
    """Wait until a file exists, and then for a time."""
    path, seconds, *_ = path_and_seconds.split()
    deadline = time.monotonic() + 30.0
    while not Path(path).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"there is no {path}")
        time.sleep(0.01)
    sleep(seconds)


def count(path: str) -> None:
    with Path(path).open("a") as file:
        file.write("x\n")


def kill_once(marker: str) -> None:
    if not Path(marker).exists():
        Path(marker).touch()
        kill()


def kill(_: str = "") -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def loop(_: str) -> None:
    while True:
        pass


def be_stuck(_: str) -> None:
    """Hang like C code that ignores signals."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    while True:
        time.sleep(60)


def allocate(size_bytes: str) -> None:
    bytearray(int(size_bytes))


def fail_often(path_and_times: str) -> None:
    """Raise ConnectionError the first times; the file counts the calls."""
    path, times = path_and_times.split()
    count(path)
    if len(Path(path).read_text().splitlines()) <= int(times):
        raise ConnectionError("the service is away")


DEEDS: Final[dict[str, Callable[[str], object]]] = {
    "sleep": sleep,
    "touchy": touchy,
    "wait-for": wait_for,
    "count": count,
    "kill": kill,
    "kill-once": kill_once,
    "exit": lambda status: os._exit(int(status)),
    "leave": lambda _: sys.exit("a step leaves"),
    "loop": loop,
    "stuck": be_stuck,
    "allocate": allocate,
    "fail-often": fail_often,
}


def person(index: int) -> ModelData:
    return {"name": f"First{index} Last{index}", "age": index % 90}


def broken_step(index: int) -> ModelData:
    return {"name": f"First{index} Secret", "age": -1}


def invalid(index: int) -> ModelData:
    return {"name": f"First{index} Secret", "age": 1000 + index}
