"""A step that reports the modules its process has loaded since it was forked."""

import os
import sys

from pydantic import BaseModel

from pyrmute_tasks import ModelData, ModelManager

manager = ModelManager()

_when_forked: set[str] = set()
os.register_at_fork(after_in_child=lambda: _when_forked.update(sys.modules))


@manager.model("Loaded", "1.0.0")
class LoadedV1(BaseModel):
    modules: list[str] = []


@manager.model("Loaded", "2.0.0")
class LoadedV2(BaseModel):
    modules: list[str]


@manager.model("Loaded", "3.0.0", backward_compatible=True)
class LoadedV3(BaseModel):
    modules: list[str]
    checked: bool = True


@manager.migration("Loaded", "1.0.0", "2.0.0")
def tell(record: ModelData) -> ModelData:
    if "fail" in record:
        raise ConnectionError("as asked")
    assert _when_forked, "the module was imported after the fork"
    return {"modules": sorted(sys.modules.keys() - _when_forked)}
