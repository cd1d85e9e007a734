"""A second factor for who logs in with a key on the page: codes of a phone (TOTP, RFC 6238), and recovery codes.

The secret is stored encrypted, with a key made of CROCHET_JWT_SECRET: a copy of the database alone makes no codes.
Recovery codes have 80 random bits, of which the SHA-256 is stored, and count once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
import uuid
from typing import NamedTuple

import pyotp
from cryptography.fernet import Fernet, InvalidToken

from crochet_tasks.db import Connection, access, second_factors
from crochet_tasks.db.access import Entry, KeyRow
from crochet_tasks.db.second_factors import FactorRow
from crochet_tasks.db.sessions import Database
from crochet_tasks.errors import CodeRefused, InvalidRequest, TokensOff
from crochet_tasks.settings import Settings

STEP_SECONDS = 30
DRIFT = 1
"""steps by which the clock of a phone may be off"""
RECOVERY_CODES = 10


class Enrolment(NamedTuple):
    """What a phone is given: the secret, and the same as an address. `mark` tells it from others, and says nothing of
    it.
    """

    secret: str
    address: str
    mark: str


def is_on(connection: Connection, key: int) -> bool:
    row = second_factors.of(connection, key)
    return row is not None and row.confirmed_at is not None


def enrol(database: Database, settings: Settings, key: KeyRow, shown: str | None = None) -> Enrolment:
    """A new secret for a key that has none, in place of one that is not confirmed; raises InvalidRequest, TokensOff.

    `shown`: the mark of the secret that its reader was shown before, which stays if it is that. Others who have the
    key are never shown it: two who know a secret would both have the codes.
    """
    if key.person is not None:
        raise InvalidRequest(problem="the second factor of people is their provider's")
    box = _box(settings)
    with database.transaction() as connection:
        row = second_factors.of(connection, key.id)
        if row is not None and row.confirmed_at is not None:
            raise InvalidRequest(problem="this key has a second factor already")
        stored = None if row is None else bytes(row.secret)
        secret = None if stored is None or _mark(stored) != shown else _opened(settings, stored)
        if stored is None or secret is None:
            secret = pyotp.random_base32()
            stored = box.encrypt(secret.encode())
            if not second_factors.offer(connection, key.id, stored):  # it was confirmed just now
                raise InvalidRequest(problem="this key has a second factor already")
    address = pyotp.TOTP(secret).provisioning_uri(name=key.prefix, issuer_name="crochet")
    return Enrolment(secret, address, _mark(stored))


def confirm(
    database: Database, settings: Settings, key: KeyRow, code: str, entry: Entry, session: uuid.UUID | None = None
) -> list[str]:
    """Turn it on with a first code; the recovery codes, which are shown this once. Raises CodeRefused.

    Other sessions than `session` end: they were begun with the key alone, and may be a thief's.
    """
    made = [base64.b32encode(secrets.token_bytes(10)).decode().lower() for _ in range(RECOVERY_CODES)]
    with database.transaction() as connection:
        row = second_factors.of(connection, key.id, lock=True)
        step = None if row is None or row.confirmed_at is not None else _step(settings, row, code)
        if step is not None:
            second_factors.confirm(connection, key.id, step, [_hashed(each) for each in made])
            access.end_sessions(connection, key=key.id, but=session)
            _log(connection, entry, "second_factor.enabled", key)
    if step is None:
        raise CodeRefused(reason="it is not that of this moment")
    return made


def check(database: Database, settings: Settings, key: KeyRow, code: str, entry: Entry) -> None:
    """Raise CodeRefused unless this is a code of the phone that was not used yet, or a recovery code.

    Wrong codes are counted, whatever happens to the request: after some, none is looked at for a while.
    """
    with database.transaction() as connection:
        row = second_factors.of(connection, key.id, lock=True)
        reason = "there is none" if row is None or row.confirmed_at is None else None
        if row is not None and reason is None:
            reason = "too many were wrong: try again later" if row.locked else None
            if reason is None and not _accepted(connection, settings, key, row, code, entry):
                reason = "it is wrong, or was used"
                if second_factors.fail(connection, row):
                    _log(connection, entry, "second_factor.locked", key)
    if reason is not None:
        raise CodeRefused(reason=reason)


def _accepted(connection: Connection, settings: Settings, key: KeyRow, row: FactorRow, code: str, entry: Entry) -> bool:
    step = _step(settings, row, code)
    if step is not None:
        second_factors.accept(connection, key.id, step=step)
        return True
    digest = _hashed(code)
    left = [each for each in row.recovery if not hmac.compare_digest(bytes(each), digest)]
    if len(left) == len(row.recovery):
        return False
    second_factors.accept(connection, key.id, recovery=left)
    _log(connection, entry, "second_factor.recovered", key)
    return True


def disable(database: Database, key: KeyRow, entry: Entry) -> bool:
    """Take it away; whether it was on."""
    with database.transaction() as connection:
        was = second_factors.remove(connection, key.id)
        if was:
            _log(connection, entry, "second_factor.disabled", key)
    return was


def _step(settings: Settings, row: FactorRow, code: str) -> int | None:
    """The time step that this is the code of, if none of it or of a later one was used."""
    secret = _opened(settings, row.secret)
    if secret is None:  # recovery codes still count
        return None
    totp = pyotp.TOTP(secret)
    now, given = int(time.time()) // STEP_SECONDS, code.replace(" ", "").encode()
    found = None
    for step in range(now - DRIFT, now + DRIFT + 1):
        if hmac.compare_digest(totp.generate_otp(step).encode(), given) and step > row.step:
            found = step
    return found


def _opened(settings: Settings, stored: bytes) -> str | None:
    """The secret; None where CROCHET_JWT_SECRET is another than when it was stored."""
    try:
        return _box(settings).decrypt(bytes(stored)).decode()
    except InvalidToken:
        return None


def _mark(stored: bytes) -> str:
    return hashlib.sha256(stored).hexdigest()


def _log(connection: Connection, entry: Entry, what: str, key: KeyRow) -> None:
    access.add_log_entry(connection, entry._replace(what=what, tenant=key.tenant, key=key.prefix))


def _hashed(code: str) -> bytes:
    return hashlib.sha256(code.replace(" ", "").lower().encode()).digest()


def _box(settings: Settings) -> Fernet:
    if settings.jwt_secret is None:
        raise TokensOff
    digest = hashlib.sha256(b"second factors of " + settings.jwt_secret.get_secret_value().encode()).digest()
    return Fernet(base64.urlsafe_b64encode(digest))
