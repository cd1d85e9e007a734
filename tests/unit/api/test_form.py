"""JSON bodies are bounded before they are parsed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import form
from crochet_tasks.errors import CrochetError, InvalidRequest, MalformedRequest

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0"), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_what_fits_is_read_as_any_reader_reads_it(value: Any) -> None:
    """Whatever is in its strings: quotes, brackets, commas, backslashes."""
    for ascii_only in (True, False):
        written = json.dumps(value, ensure_ascii=ascii_only).encode(errors="ignore")
        assert form.parsed(written) == json.loads(written)


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    ("content", "values", "kind"),
    [
        (nested(form.DEPTH), 1000, None),
        (nested(form.DEPTH + 1), 1000, MalformedRequest),
        (b'{"a":' * (form.DEPTH + 1), 1000, MalformedRequest),
        (b"[" * 1_000_000, 1000, InvalidRequest),
        (b"[[],[],[]]", 6, None),
        (b"[[],[],[]]", 5, InvalidRequest),
        (b'["' + b"[,{" * 500 + b'"]', 1, None),
        (b'["\\"' + b"[,{" * 500 + b'"]', 1, None),
        (b'["\\\\",' + b"[],{}," * 500, 1, InvalidRequest),
        (b'"' * 100_000, 1, MalformedRequest),
        (b'"' + b'\\"' * 500_000, 1, MalformedRequest),
        (b'"' + b'\\"' * 500_000 + b"\\", 1, MalformedRequest),
        (b'{"a": 1, "b": 2, "a": 1}', 1000, InvalidRequest),
        (b'[{"a": {"b": 1, "b": 2}}]', 1000, InvalidRequest),
        (b"NaN", 1000, MalformedRequest),
        (b"[-Infinity]", 1000, MalformedRequest),
        (b"9" * 5000, 1000, MalformedRequest),
        ("[1]".encode("utf-16"), 1000, MalformedRequest),
        (b'"\xed\xa0\x80"', 1000, MalformedRequest),
        (b"\xef\xbb\xbf[1]", 1000, None),
        (b"", 1000, MalformedRequest),
    ],
)
def test_bounds_of_json(content: bytes, values: int, kind: type[CrochetError] | None) -> None:
    """Depth, number of values, keys that come twice, and what other readers take but RFC 8259 has not."""
    if kind is None:
        form.parsed(content, values)
        return
    with pytest.raises(kind):
        form.parsed(content, values)
