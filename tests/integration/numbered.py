"""A step that notes in a file which records it has seen."""

import os
import time

from pydantic import BaseModel

from pyrmute_tasks import ModelData, ModelManager

manager = ModelManager()


@manager.model("Entry", "1.0.0")
class EntryV1(BaseModel):
    number: int
    notes: str
    seconds: float = 0.0


@manager.model("Entry", "2.0.0")
class EntryV2(BaseModel):
    number: int
    text: str


@manager.migration("Entry", "1.0.0", "2.0.0")
def note(data: ModelData) -> ModelData:
    number = data["number"]
    file = os.open(data["notes"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, b"%d\n" % number)
    finally:
        os.close(file)
    time.sleep(data.get("seconds", 0.0))
    if number % 97 == 13:
        raise LookupError("an unlucky number")
    return {"number": number, "text": f"entry {number}"}
