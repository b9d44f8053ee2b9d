"""Numbers of things as text."""

__all__ = ["counted"]


def counted(number: int, what: str) -> str:
    """Return a number of things, ``1 record``, ``2 records`` or ``2 crashes``."""
    ending = "" if number == 1 else "es" if what.endswith("sh") else "s"
    return f"{number:,} {what}{ending}"
