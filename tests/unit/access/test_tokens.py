"""Access tokens and keys: any text is claims that this server signed, or Unauthorized; never a crash."""

from __future__ import annotations

import json
import time
import uuid

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crochet_tasks.access import signing, tokens
from crochet_tasks.access.tokens import ALGORITHM, AUDIENCE, ISSUER, Claims
from crochet_tasks.errors import Unauthorized
from crochet_tasks.settings import Settings

SECRET = "s" * 64
SETTINGS = Settings.load(jwt_secret=SECRET)
SESSION = uuid.UUID(int=7)
NOW = int(time.time())
GOOD = {"iss": ISSUER, "aud": AUDIENCE, "sub": "abcdefghij", "sid": str(SESSION), "iat": NOW, "exp": NOW + 86_400}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


def read(token: str) -> Claims | None:
    try:
        return tokens.read(SETTINGS, token)
    except Unauthorized:
        return None


def signed(claims: object) -> str:
    return jwt.api_jws.encode(json.dumps(claims).encode(), SECRET, ALGORITHM)


def test_what_this_server_signed_is_read() -> None:
    assert read(signed(GOOD)) == Claims("abcdefghij", SESSION)


@given(st.one_of(st.text(max_size=80), st.lists(st.text(max_size=20), min_size=3, max_size=3).map(".".join)))
def test_any_text_is_refused(token: str) -> None:
    assert read(token) is None


@given(st.data())
def test_a_changed_one_is_refused(data: st.DataObject) -> None:
    """Unless what was changed are the bits that base64 does not use."""
    token = signed(GOOD)
    place = data.draw(st.integers(0, len(token) - 1))
    changed = token[:place] + data.draw(st.text(max_size=3)) + token[place + 1 :]
    assert read(changed) in (None, Claims("abcdefghij", SESSION))
    if place < token.rindex("."):
        assert changed == token or read(changed) is None


@given(JSON)
def test_any_other_claims_are_refused(claims: object) -> None:
    """Signed by us, as an older or newer release may have: no crash."""
    assert read(signed(claims)) is None


@given(st.sampled_from(sorted(GOOD)), JSON)
def test_any_value_of_a_claim_is_one_or_refused(name: str, value: object) -> None:
    found = read(signed(GOOD | {name: value}))
    assert found is None or (found.session == SESSION and signing.PREFIX.fullmatch(found.key))


@pytest.mark.parametrize("algorithm", ["none", "HS512"])
def test_no_other_algorithm_is_taken(algorithm: str) -> None:
    key = None if algorithm == "none" else SECRET
    assert read(jwt.encode(GOOD, key, algorithm)) is None  # type: ignore[arg-type]


@given(st.text(max_size=70))
def test_any_text_is_no_key(text: str) -> None:
    assert signing.split(text) is None
    assert signing.split(f"crk_abcdefghij_{text}") is None


@given(st.text("abcXYZ019_-", min_size=41, max_size=45))
def test_the_secret_of_a_key_has_43_characters(secret: str) -> None:
    parts = signing.split(f"crk_abcdefghij_{secret}")
    assert parts == (("abcdefghij", signing.hashed(secret)) if len(secret) == 43 else None)
