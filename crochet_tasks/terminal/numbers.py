"""How numbers, rates, sizes and times are written for people: one way, everywhere."""

from __future__ import annotations

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def count(number: int) -> str:
    """A whole number, in groups of three digits."""
    return f"{number:,}"


def counted(number: int, thing: str, things: str | None = None) -> str:
    """`1 text`, `2,000 texts`."""
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"


def rate(number: float | None) -> str:
    """A rate: whole from 10 on, with two digits after the point below; unknown where it is None."""
    if number is None:
        return "unknown"
    return f"{number:,.0f}" if number >= 10 or not number else f"{number:.2f}"


def share(part: float | None) -> str:
    """A part of one, in whole percent; only nothing and all are 0 and 100."""
    if part is None:
        return "unknown"
    percent = round(100 * part)
    if part and not percent:
        return "<1 %"
    return ">99 %" if percent == 100 and part < 1 else f"{percent} %"


def seconds(duration: float) -> str:
    """How long something took or takes: 0.4 s, 12 s, 3 min, 2.5 h, 4 d."""
    if duration < 9.95:
        return f"{duration:.1f} s"
    if duration < 2 * _MINUTE:
        return f"{duration:.0f} s"
    if duration < 2 * _HOUR:
        return f"{duration / _MINUTE:.0f} min"
    return f"{duration / _HOUR:.1f} h" if duration < 2 * _DAY else f"{duration / _DAY:,.0f} d"


def size(number: float) -> str:
    """A number of bytes: 1 kB is 1000 bytes."""
    for unit in ("bytes", "kB", "MB"):
        if number < 999.5:
            return f"{number:.0f} {unit}" if unit == "bytes" or number >= 99.95 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} GB"


_UNITS = ((10**12, "trillion"), (10**9, "billion"), (10**6, "million"))


def about(number: float) -> str:
    """A number that is an estimate, with two digits: 86, 4,300, 1.7 billion."""
    for size, name in _UNITS:
        if number >= 0.995 * size:
            part = number / size
            return f"{part:.1f} {name}" if part < 9.95 else f"{_two_digits(part)} {name}"
    return _two_digits(number)


def between(low: float, high: float) -> str:
    """An interval of estimates: `1.5 to 2.0 billion`."""
    first, last = about(low), about(high)
    unit = last.partition(" ")[2]
    return f"{first.removesuffix(f' {unit}') if unit else first} to {last}"


def _two_digits(number: float) -> str:
    digits = len(str(round(number))) - 2
    return f"{round(number, -max(0, digits)):,.0f}"
