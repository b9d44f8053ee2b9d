"""Semantic versions of models."""

from dataclasses import dataclass
from typing import Self, TypeAlias

from pyrmute_tasks.errors import InvalidVersionError

__all__ = ["ModelVersion", "VersionLike"]

_PARTS = 3


@dataclass(frozen=True, order=True)
class ModelVersion:
    """A version of a model: three numbers, compared as numbers.

    Attributes:
        major: Raised by breaking changes.
        minor: Raised by additions.
        patch: Raised by corrections.
    """

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, version_str: str) -> Self:
        """Read ``"major.minor.patch"``.

        Args:
            version_str: The text.

        Returns:
            The version.

        Raises:
            InvalidVersionError: If it is anything else.
        """
        if not isinstance(version_str, str):  # 1.0 for "1.0.0"
            raise InvalidVersionError(str(version_str), "Version must be text, as '1.0.0'")
        if not version_str.isprintable():  # int() would accept a newline
            raise InvalidVersionError(version_str, "Version must not hold control characters")
        parts = version_str.split(".")
        if len(parts) != _PARTS:
            raise InvalidVersionError(
                version_str, "Version must have exactly 3 parts (major.minor.patch)"
            )
        try:
            numbers = [int(part) for part in parts]
        except ValueError as error:
            raise InvalidVersionError(
                version_str, f"Version parts must be integers: {error}"
            ) from error
        if min(numbers) < 0:
            raise InvalidVersionError(version_str, "Version parts must be positive integers")
        return cls(*numbers)

    @classmethod
    def of(cls, version: "VersionLike") -> "ModelVersion":
        """Return `version` as a `ModelVersion`, parsing it if it is a string.

        Args:
            version: The version, or its text.

        Returns:
            The version.

        Raises:
            InvalidVersionError: If the text is not a version.
        """
        return version if isinstance(version, ModelVersion) else cls.parse(version)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"

    def __repr__(self) -> str:
        return f"ModelVersion({self.major}, {self.minor}, {self.patch})"


VersionLike: TypeAlias = str | ModelVersion
"""A version as callers may give it: ``"1.0.0"`` or a `ModelVersion`."""
