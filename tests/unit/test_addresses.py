"""The URLs of servers: every parameter is kept or refused, and no message repeats a part of a password."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from crochet_tasks import net
from crochet_tasks.errors import InvalidSetting
from crochet_tasks.net import postgres_parameters
from crochet_tasks.settings import Settings

SPECIAL = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ aZ0äß€"
SECRETS = ("Secret7", "ssw0rd")


@pytest.mark.parametrize("character", SPECIAL)
def test_a_password_may_hold_every_character(character: str) -> None:
    password = f"a{character}b"
    url = f"postgresql://user:{quote(password, safe='')}@host:5432/db"
    expected = {"user": "user", "password": password, "host": "host", "port": "5432", "dbname": "db"}
    assert postgres_parameters(url) == expected
    for kind in ("BROKER_URL", "REDIS_URL"):
        scheme = "amqp" if kind == "BROKER_URL" else "redis"
        value = f"{scheme}://user:{quote(password, safe='')}@host:1234/0"
        loaded = getattr(Settings.load(**{kind.lower(): value}), kind.lower())
        assert loaded.get_secret_value() == value


@pytest.mark.parametrize("character", sorted(set(SPECIAL) - set("@%")))
def test_most_characters_of_a_password_need_no_encoding(character: str) -> None:
    assert postgres_parameters(f"postgresql://user:a{character}b@host/db")["password"] == f"a{character}b"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://h/d", {"host": "h", "dbname": "d"}),
        ("postgres://h/d", {"host": "h", "dbname": "d"}),
        ("postgresql+psycopg://u@h/d", {"user": "u", "host": "h", "dbname": "d"}),
        ("postgresql://[::1]:6432/d", {"host": "::1", "port": "6432", "dbname": "d"}),
        ("postgresql://a:1,b:2/d", {"host": "a,b", "port": "1,2", "dbname": "d"}),
        ("postgresql://a,[fe80::1]:2/d", {"host": "a,fe80::1", "port": ",2", "dbname": "d"}),
        ("postgresql:///d?host=a:1&host=b:2", {"host": "a,b", "port": "1,2", "dbname": "d"}),
        ("postgresql://u@/d?host=%2Frun%2Fpg&port=5", {"user": "u", "dbname": "d", "host": "/run/pg", "port": "5"}),
        ("postgresql://%2Frun%2Fpg/d", {"host": "/run/pg", "dbname": "d"}),
        ("postgresql:///d?user=a@b", {"dbname": "d", "user": "a@b"}),
        (
            "postgresql://h/d?options=-csearch_path%3Dx&sslmode=verify-full&application_name=mine",
            {
                "host": "h",
                "dbname": "d",
                "options": "-csearch_path=x",
                "sslmode": "verify-full",
                "application_name": "mine",
            },
        ),
    ],
)
def test_every_part_of_an_address_reaches_the_driver(url: str, expected: dict[str, str]) -> None:
    assert postgres_parameters(url) == expected


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("", "must be a Postgres address"),
        ("mysql://h/d", "must be a Postgres address"),
        ("postgresql://", "must be a Postgres address"),
        ("postgresql://u:p@ssw0rd@db/d", "write @ as %40"),
        ("postgresql://u:p@Secret7/d@h", "write @ as %40"),
        ("postgresql://u:p@Secret7#x@h/d", "write @ as %40"),
        ("postgresql://h:Secret7/d", "the port must be a number"),
        ("postgresql://u:p@h:Secret7/d", "the port must be a number"),
        ("postgresql://h:70000/d", "the port must be a number"),
        ("postgresql://fe80::1/d", "IPv6 address stands in brackets"),
        ("postgresql://h:5432/d?user=Secret7@h", "write @ as %40"),
        ("postgresql://h/d?schema=x", "(schema): remove it; options=-csearch_path%3DNAME chooses a schema"),
        ("postgresql://h/d?pgbouncer=true", "(pgbouncer): remove it"),
        ("postgresql://u:p@h?Secret7&x@h/d", "a parameter that Postgres does not know"),
        ("postgresql://h/d?sslmode=a&sslmode=b", "sslmode is given twice"),
        ("postgresql://h/d?client_encoding=LATIN1", "client_encoding is always UTF8"),
        ("postgresql://h/d?options=-c%20statement_timeout%3D5s", "set CROCHET_STATEMENT_TIMEOUT"),
        ("postgresql://h/d?options=-csearch_path%3Dx%20--lock-timeout%3D5s", "set CROCHET_LOCK_TIMEOUT"),
        ("postgresql://u:Secret7%00@h/d", "NUL character"),
        ("postgresql://h/d?application_name=%00", "NUL character"),
        ("postgresql://h/d?port=Secret7", "the port must be a number"),
        ("postgresql://h/d?port=1,2", "one for all hosts, or one for each"),
        ("postgresql://h/d?connect_timeout=Secret7", "connect_timeout must be a whole number"),
        ("postgresql://h/d?target_session_attrs=master", "target_session_attrs must be one of any, read-write"),
        ("postgresql://h/d?load_balance_hosts=on", "load_balance_hosts must be one of disable, random"),
        ("postgresql://h/d?sslmode=on", "sslmode must be one of disable, allow"),
        ("postgresql://h/d?ssl_min_protocol_version=foo", "ssl_min_protocol_version must be one of TLSv1, "),
        ("postgresql://h/d?keepalives_idle=Secret7", "keepalives_idle must be a whole number"),
        ("postgresql://h/d?require_auth=Secret7", "the parameter require_auth has a value that libpq does not accept"),
        ("postgresql://h/d?sslcertmode=Secret7", "the parameter sslcertmode has a value that libpq does not accept"),
        ("postgresql://h/d?service=Secret7", "the parameter service has a value that libpq does not accept"),
        (
            "postgresql://h/d?ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2",
            "ssl_max_protocol_version, ssl_min_protocol_version contradict each other",
        ),
        ("postgresql://h/d?hostaddr=Secret7", "hostaddr must be an IP address"),
        ("postgresql://Secret7..x/d", "the host is neither a host name nor an IP address"),
        ("postgresql://h,-Secret7/d", "the host is neither a host name nor an IP address"),
    ],
)
def test_a_wrong_database_url_is_refused_with_advice(url: str, part: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        Settings.load(database_url=url)
    message = str(caught.value)
    assert part in message
    assert message.startswith("CROCHET_DATABASE_URL: ")
    assert not any(secret in message + repr(caught.value.__cause__) for secret in SECRETS)


@pytest.mark.parametrize(
    ("setting", "value", "part"),
    [
        ("broker_url", "amqp://a;amqp://b", "one, not several"),
        ("broker_url", "amqp://u:Secret7/x@h/", "write @ as %40"),
        ("broker_url", "amqp://u:1234?Secret7@h/", "write @ as %40"),
        ("broker_url", "amqp://u:1234#Secret7@h/", "write @ as %40"),
        ("broker_url", "amqp://h/?heartbeat=5", "is not used here (allowed: none)"),
        ("broker_url", "amqp://Secret7..x/", "the host is neither a host name nor an IP address"),
        ("redis_url", "redis://300.1.1.1/0", "the host is neither a host name nor an IP address"),
        ("otlp_url", "http://-Secret7/", "the host is neither a host name nor an IP address"),
        ("broker_url", "redis://h/0", "must be an address such as amqp://"),
        ("redis_url", "redis://h/0?Secret7=x", "is not used here (allowed: client_name, db,"),
        ("redis_url", "redis://:Secret7/0", "write @ as %40"),
        ("redis_url", "redis://h/0?db=Secret7", "the parameter db must be a whole number"),
        ("redis_url", "redis://h/0?socket_timeout=abc", "socket_timeout must be a number of seconds"),
        ("redis_url", "redis://h/0?protocol=9", "protocol must be 2 or 3"),
        ("redis_url", "rediss://h/0?ssl_cert_reqs=no", "ssl_cert_reqs must be none, optional or required"),
        ("redis_url", "redis:///0", "must be an address such as redis://host:6379/0"),
    ],
)
def test_a_wrong_broker_or_redis_url_is_refused_with_advice(setting: str, value: str, part: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        Settings.load(**{setting: value})
    assert part in str(caught.value)
    assert not any(secret in str(caught.value) for secret in SECRETS)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("broker_url", "amqps://user:p%40ss@[::1]:5671/vhost"),
        ("redis_url", "unix:///run/redis.sock?db=1"),
        ("redis_url", "rediss://:secret@host:6380/0?ssl_ca_certs=/etc/ca.pem&protocol=3"),
    ],
)
def test_addresses_of_brokers_and_of_redis_are_accepted(setting: str, value: str) -> None:
    assert getattr(Settings.load(**{setting: value}), setting).get_secret_value() == value


def test_a_variable_of_libpq_that_it_refuses_is_not_the_address_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not matter to a private server; the first connection to another one reports it (test_connecting.py)."""
    monkeypatch.setenv("PGSSLMODE", "on")
    assert Settings.load(database_url="postgresql://h/d?application_name=x").database_url is not None


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "::1", "fe80::1%eth0", "localhost", "a.b.", "db_1", "10.0.0.1.nip.io", "1a"]
)
def test_hosts_are_names_or_addresses(host: str) -> None:
    assert net.is_host(host)


@pytest.mark.parametrize(
    "host",
    ["", "foo..bar", "300.1.1.1", "1.2.3", "[::1]", "-a", "a-", "x" * 64, "a b", "h:80", "h/", "a" * 250 + ".com", "ä"],
)
def test_what_can_be_no_host_is_none(host: str) -> None:
    assert not net.is_host(host)
    assert [str(each) for each in Settings.problems(api_host=host, flower_host=host, metrics_host=host)] == [
        f"CROCHET_{name}_HOST: must be a host name or an IP address, such as 127.0.0.1 or ::1"
        for name in ("API", "FLOWER", "METRICS")
    ]
