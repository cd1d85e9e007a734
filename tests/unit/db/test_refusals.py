"""What libpq says of TLS, in words of libpq 18: it gives no SQLSTATE while it connects."""

from __future__ import annotations

import psycopg
import pytest

from crochet_tasks.db import sessions

AT = 'connection to server at "db.example", port 5432 failed: '


@pytest.mark.parametrize(
    ("message", "refused"),
    [
        (f"{AT}SSL error: certificate verify failed", True),
        (f'{AT}server certificate for "other" does not match host name "db.example"', True),
        ('root certificate file "/nowhere/root.crt" does not exist', True),
        (f"{AT}FATAL:  connection requires a valid client certificate", True),
        (f'{AT}FATAL:  no pg_hba.conf entry for host "127.0.0.1", user "u", database "d", no encryption', True),
        (f"{AT}SSL SYSCALL error: EOF detected", False),
        (f"{AT}Connection refused", False),
        (f"{AT}FATAL:  the database system is starting up", False),
        (f"{AT}FATAL:  sorry, too many clients already", False),
    ],
)
def test_what_waiting_cannot_mend_is_told_from_what_it_can(message: str, refused: bool) -> None:
    assert (sessions.login_failed(psycopg.OperationalError(message)) is not None) is refused
