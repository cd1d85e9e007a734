"""Mask passwords, keys and tokens in all that is logged or traced, as far as they can be recognised."""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from numbers import Integral, Number, Real
from typing import Any

HIDDEN = "***"

_CALLED = ("password", "passwd", "passphrase", "secret", "authorization")
_NAMES = f"(?:{'|'.join(_CALLED)})"
_SECRETS = (
    # Passwords in addresses, up to the last @ of the authority; one with a slash, up to the next. Ports are none.
    (re.compile(r"(?<=://)([^\s:/@]*):(?!\d+[/?#])(?:[^\s/?#]{1,500}|[^\s@]{1,500})@"), rf"\1:{HIDDEN}@"),
    # password=..., in addresses, for libpq, in source lines of a traceback; 'password': ... in what was a dictionary
    (
        re.compile(
            rf"({_NAMES}\w*(?:[\"']\s*:|\s*=)\s*)('(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|[^\s&]+)",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    # Names and passwords in base64; "basic authentication" is none.
    (re.compile(r"\b([Bb]asic)\s+(?=\S*(?:[\d+/=]|[a-z][A-Z]))[A-Za-z0-9+/]{4,}={0,2}"), rf"\1 {HIDDEN}"),
    (re.compile(r"(crk_[a-z2-7]{10})_[\w-]{43}"), rf"\1_{HIDDEN}"),  # API keys
    (re.compile(r"crr_[\w-]{20,}"), f"crr_{HIDDEN}"),  # refresh tokens
    (re.compile(r"eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), HIDDEN),  # access tokens
)
_LIKELY = re.compile(f"://|[Bb]asic|crk_|crr_|eyJ|(?i:{_NAMES})").search
"""Each of them has one of these; most texts have none. Every line of a log passes here, and every span."""


def plain(value: object) -> bool | int | float | str:
    """A number as Python's own, whatever library it is of; everything else as text."""
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else str(value)


def masked(value: Any) -> Any:
    """The same without the secrets in it; what is neither a number nor a collection becomes text."""
    if value is None or isinstance(value, Number):
        return None if value is None else plain(value)
    if isinstance(value, Mapping):
        return {masked(key): _part(key, part) for key, part in value.items()}
    if isinstance(value, list | tuple | AbstractSet):
        return [masked(part) for part in value]
    text = value.decode(errors="backslashreplace") if isinstance(value, bytes | bytearray) else str(value)
    for pattern, mask in _SECRETS if _LIKELY(text) else ():
        text = pattern.sub(mask, text)
    return text


def _part(key: object, value: object) -> Any:
    """A value of a mapping: one whose key names a secret is one, whatever it looks like."""
    return HIDDEN if value is not None and str(key).lower().endswith(_CALLED) else masked(value)
