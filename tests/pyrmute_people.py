"""A manager of pyrmute itself, importable by workers, with the steps of `tests.people`."""

from pydantic import BaseModel
from pyrmute import ModelData, ModelManager

manager = ModelManager()


@manager.model("Person", "1.0.0")
class PersonV1(BaseModel):
    name: str
    age: int


@manager.model("Person", "2.0.0")
class PersonV2(BaseModel):
    first_name: str
    age: int


@manager.model("Person", "3.0.0", backward_compatible=True)
class PersonV3(BaseModel):
    first_name: str
    age: int
    tags: list[str] = []


@manager.migration("Person", "1.0.0", "2.0.0")
def first_name(data: ModelData) -> ModelData:
    return {"first_name": data["name"].split()[0], "age": data["age"]}
