"""Days and times as text, also those that Python has no value for: before the year 1, after 9999, and 24:00."""

from datetime import date

DAY_MICROSECONDS = 86_400_000_000
_FIRST_DAY, _LAST_DAY = date(1, 1, 1).toordinal(), date(9999, 12, 31).toordinal()
_EPOCH = date(1970, 1, 1).toordinal()
_ERA_DAYS, _ERA_YEARS = 146_097, 400


def day_text(number: int) -> str:
    """A day since 1970 in the calendar of ISO 8601, which repeats after 400 years."""
    ordinal = number + _EPOCH
    if _FIRST_DAY <= ordinal <= _LAST_DAY:
        return date.fromordinal(ordinal).isoformat()
    eras, ordinal = divmod(ordinal - 1, _ERA_DAYS)
    day = date.fromordinal(ordinal + 1)
    year = day.year + eras * _ERA_YEARS
    return f"{'-' if year < 0 else ''}{abs(year):04d}-{day.month:02d}-{day.day:02d}"


def clock_text(microseconds: int) -> str:
    """A time of day."""
    seconds, rest = divmod(microseconds, 1_000_000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{rest:06d}"


def moment_text(microseconds: int) -> str:
    """A day and a time, told by the microseconds since 1970."""
    return f"{day_text(microseconds // DAY_MICROSECONDS)} {clock_text(microseconds % DAY_MICROSECONDS)}"
