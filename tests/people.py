"""A small chain of versions with every way to fail, importable by workers."""

import os
import signal
import time
from pathlib import Path

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
    """Do what a name says: some tests need a step that takes time or dies."""
    verb, _, argument = name.partition(":")
    if verb == "sleep":
        time.sleep(float(argument.split()[0]))
    elif verb == "count":
        with Path(argument).open("a") as file:
            file.write("x\n")
    elif verb == "kill-once":
        marker = Path(argument)
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    elif verb == "exit":
        os._exit(int(argument))
    elif verb == "kill":
        os.kill(os.getpid(), signal.SIGKILL)


def person(index: int) -> ModelData:
    return {"name": f"First{index} Last{index}", "age": index % 90}


def broken_step(index: int) -> ModelData:
    return {"name": f"First{index} Secret", "age": -1}


def invalid(index: int) -> ModelData:
    return {"name": f"First{index} Secret", "age": 1000 + index}
