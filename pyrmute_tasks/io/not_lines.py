"""Files that are no JSON lines, told by how they begin, with what to do about it."""

import os
import re
import shlex
from typing import Final

from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.io.jsonl import source_errors
from pyrmute_tasks.ranges.lines import BOM

__all__ = ["refuse_other_formats"]

_HEAD_BYTES: Final = 4096
_COMPRESSED: Final = (
    (b"\x1f\x8b", "gzip", "gunzip -c"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstd -dc"),
    (b"\xfd7zXZ\x00", "xz", "xz -dc"),
    (b"BZh", "bzip2", "bzip2 -dc"),
)
_ARRAY: Final = re.compile(rb"\s*\[\s*(\{|\r?\n|$)")
_OVER_LINES: Final = re.compile(rb"\s*\{[ \t]*\r?\n")


def refuse_other_formats(path: str | os.PathLike[str], then: str) -> None:
    """Refuse a file that is compressed, one JSON array, or has objects over several lines.

    Args:
        path: A regular file.
        then: What the shell is to do with its lines instead: ``| COMMAND``, or ``> FILE``.

    Raises:
        ConfigurationError: If it is; it says what to do.
    """
    with source_errors(path), open(path, "rb") as file:
        head = file.read(_HEAD_BYTES).removeprefix(BOM)
    name = shlex.quote(os.fspath(path))
    for magic, kind, tool in _COMPRESSED:
        if head.startswith(magic):
            raise _refused(path, f"is compressed with {kind}", f"{tool} {name}", then)
    if _ARRAY.match(head):
        raise _refused(path, "is one JSON array", f"jq -c '.[]' {name}", then)
    if _OVER_LINES.match(head):
        raise _refused(path, "has objects that span lines", f"jq -c . {name}", then)


def _refused(path: str | os.PathLike[str], what: str, tool: str, then: str) -> ConfigurationError:
    return ConfigurationError(
        f"cannot read {os.fspath(path)}: it {what}, and not one JSON object a line. Try: "
        f"{tool} {then}"
    )
