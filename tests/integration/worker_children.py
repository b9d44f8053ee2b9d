"""Steps that start processes, or wait, importable by workers."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import billiard
from pydantic import BaseModel

from pyrmute_tasks import ModelData, ModelManager

manager = ModelManager()


@manager.model("Sum", "1.0.0")
class SumV1(BaseModel):
    way: str
    value: int


@manager.model("Sum", "2.0.0")
class SumV2(BaseModel):
    way: str
    value: int


def square(value: int) -> int:
    return value * value


def in_pool(value: int, method: str) -> int:
    with multiprocessing.get_context(method).Pool(2) as pool:
        return sum(pool.map(square, range(value)))


def in_executor(value: int) -> int:
    with ProcessPoolExecutor(2) as pool:
        return sum(pool.map(square, range(value)))


def in_billiard(value: int) -> int:
    child = billiard.Process(target=square, args=(value,))
    child.start()
    child.join()
    return sum(map(square, range(value))) if child.exitcode == 0 else -1


def slowly(value: int) -> int:
    Path(f"/proc/self/fd/{value}").exists()
    time.sleep(4)
    return sum(map(square, range(value)))


@manager.migration("Sum", "1.0.0", "2.0.0")
def add_up(record: ModelData) -> ModelData:
    value, way = record["value"], record["way"]
    match way:
        case "executor":
            result = in_executor(value)
        case "billiard":
            result = in_billiard(value)
        case "slowly":
            result = slowly(value)
        case _:
            result = in_pool(value, way)
    return {"way": way, "value": result}
