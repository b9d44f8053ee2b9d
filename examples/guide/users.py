"""Two versions of `User`, in a module of their own so that workers can import them.

- 1.0.0: one name.
- 2.0.0: a first name, which must not be empty, and a last name.

    >>> user = manager.migrate({"name": "Ada Lovelace"}, "User", "1.0.0", "2.0.0")
"""

from typing import Annotated

from pydantic import BaseModel, Field

from pyrmute_tasks import ModelData, ModelManager

manager = ModelManager()


@manager.model("User", "1.0.0")
class UserV1(BaseModel):
    """A user with one name."""

    name: str


@manager.model("User", "2.0.0")
class UserV2(BaseModel):
    """A user with two names."""

    first_name: Annotated[str, Field(min_length=1)]
    last_name: str


@manager.migration("User", "1.0.0", "2.0.0")
def split_name(data: ModelData) -> ModelData:
    """Split at the first space; who has one name has it as the first."""
    first, _, last = data["name"].partition(" ")
    return {"first_name": first, "last_name": last}
