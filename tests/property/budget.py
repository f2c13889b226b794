"""How many examples a law is tried on: few by day, many by night."""

from hypothesis import settings


def examples(by_day: int, by_night: int) -> int:
    """The number for the profile that is loaded; `settings(max_examples=...)` would hold in every profile."""
    return by_night if settings.default.max_examples >= 1000 else by_day
