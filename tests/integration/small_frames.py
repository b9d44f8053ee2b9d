"""A manager whose processes carry at most 64 KiB in a frame, so that tests need no gigabytes.

Only for processes of their own: importing this changes the limit for good.
"""

from pydantic import BaseModel

from pyrmute_tasks import ModelData, ModelManager
from pyrmute_tasks.engine import chunks
from pyrmute_tasks.wire import frames

LIMIT_BYTES = 64 * 1024
frames.MAX_FRAME_BYTES = chunks.MAX_FRAME_BYTES = LIMIT_BYTES  # type: ignore[misc]  # on purpose

manager = ModelManager()


@manager.model("Seed", "1.0.0")
class Seed(BaseModel):
    letter: str
    size_bytes: int


@manager.model("Seed", "2.0.0")
class Plant(BaseModel):
    text: str


@manager.migration("Seed", "1.0.0", "2.0.0")
def grow(data: ModelData) -> ModelData:
    if data["letter"] == "!":
        raise ValueError("x" * data["size_bytes"])
    return {"text": data["letter"] * data["size_bytes"]}
