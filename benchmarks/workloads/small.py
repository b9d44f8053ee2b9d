"""A small record and the two-step chain of pyrmute's README."""

from typing import Any, Final

from pydantic import BaseModel

from pyrmute_tasks import ModelManager

HOP: Final = ("User", "1.0.0", "3.0.0")


class UserV1(BaseModel):
    """A name in one piece."""

    name: str
    age: int


class UserV2(BaseModel):
    """A name in two pieces."""

    first_name: str
    last_name: str
    age: int


class UserV3(BaseModel):
    """With an address."""

    first_name: str
    last_name: str
    email: str
    age: int | None = None


def split_name(data: dict[str, Any]) -> dict[str, Any]:
    """1.0.0 → 2.0.0."""
    parts = data["name"].split(" ", 1)
    return {
        "first_name": parts[0],
        "last_name": parts[1] if len(parts) > 1 else "",
        "age": data["age"],
    }


def add_email(data: dict[str, Any]) -> dict[str, Any]:
    """2.0.0 → 3.0.0."""
    return {**data, "email": f"{data['first_name'].lower()}@example.com"}


def register(manager: Any) -> Any:
    """Register models and steps with a manager of either library, and return it."""
    manager.model("User", "1.0.0")(UserV1)
    manager.model("User", "2.0.0")(UserV2)
    manager.model("User", "3.0.0")(UserV3)
    manager.migration("User", "1.0.0", "2.0.0")(split_name)
    manager.migration("User", "2.0.0", "3.0.0")(add_email)
    return manager


manager: ModelManager = register(ModelManager())
