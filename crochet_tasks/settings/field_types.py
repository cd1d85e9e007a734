"""The types of the settings' values: what each accepts, and the message for what it does not."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import platformdirs
from pydantic import AfterValidator, Field, SecretStr

from crochet_tasks import net
from crochet_tasks.errors import values
from crochet_tasks.schemas.names import NAME

# ── addresses ───────────────────────────────────────────────────────────────────────────────────

ROLES = ("api", "worker", "relay", "flower", "metrics", "backup")
"""kinds of services that have a user of their own in Postgres, RabbitMQ or both"""
_EXAMPLES = {
    "amqp": "amqp://user:password@host:5672/vhost",
    "redis": "redis://host:6379/0",
    "http": "http://user:password@host:15672/api/",
}
_REDIS_PARAMETERS = (
    *("db", "client_name", "protocol", "timeout", "max_connections", "health_check_interval", "retry_on_timeout"),
    *("socket_timeout", "socket_connect_timeout", "socket_keepalive"),
    *("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"),
)


def _postgres_url(value: SecretStr) -> SecretStr:
    net.postgres_parameters(value.get_secret_value())
    return value


def _address(*schemes: str, example: str | None = None, parameters: tuple[str, ...] = ()) -> AfterValidator:
    """A check that a value is one address with one of these schemes, and no parameter but these."""

    def checked(value: SecretStr) -> SecretStr:
        net.check_address(value.get_secret_value(), schemes, parameters, example or _EXAMPLES[schemes[0]])
        return value

    return AfterValidator(checked)


def _host(value: str) -> str:
    if not net.is_host(value):
        raise ValueError("must be a host name or an IP address, such as 127.0.0.1 or ::1")
    return value


def _link(value: str) -> str:
    """An address that pages show: of the web, and without a password."""
    if "@" in value or not value.isprintable() or " " in value:
        raise ValueError("must be an address such as https://grafana.example, without a login")
    net.check_address(value, ("http", "https"), (), "https://grafana.example")
    return value


def _origins(value: str) -> str:
    for origin in filter(None, value.split(",")):
        url = urlsplit(origin)
        whole = url.scheme in ("http", "https") and url.hostname and origin == f"{url.scheme}://{url.netloc}"
        if not whole or not re.fullmatch(r"[A-Za-z0-9.:/-]+", origin):  # else Flask-CORS takes it for a pattern
            raise ValueError("must be origins such as https://pages.example, separated by commas")
    return value


PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres_url)]
BrokerUrl = Annotated[SecretStr, _address("amqp", "amqps")]
BrokerApiUrl = Annotated[SecretStr, _address("http", "https")]
RedisUrl = Annotated[SecretStr, _address("redis", "rediss", "unix", parameters=_REDIS_PARAMETERS)]
CollectorUrl = Annotated[SecretStr, _address("http", "https", example="http://collector:4318")]
SentryDsn = Annotated[SecretStr, _address("http", "https", example="https://KEY@errors.example/1")]
PyroscopeUrl = Annotated[SecretStr, _address("http", "https", example="http://pyroscope:4040")]
Host = Annotated[str, AfterValidator(_host)]
Link = Annotated[str, AfterValidator(_link)]
Origins = Annotated[str, AfterValidator(_origins)]

# ── paths ───────────────────────────────────────────────────────────────────────────────────────

NO_HOME = Path("/dev/null/crochet-tasks")
"""the default state folder of a user without a home folder: nothing can be made there"""


def state_dir() -> Path:
    """Return the default state folder."""
    try:
        return Path(platformdirs.user_data_dir("crochet-tasks", appauthor=False))
    except RuntimeError:  # no HOME, and no entry in /etc/passwd: a random user id of OpenShift
        return NO_HOME


def _absolute(value: Path) -> Path:
    try:
        return value.absolute()
    except FileNotFoundError:
        raise ValueError("it is relative, and the working directory no longer exists") from None


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]

# ── names and secrets ───────────────────────────────────────────────────────────────────────────

NO_TENANT = "-"
"""the value of CROCHET_OPERATOR_TENANT that names no tenant; no tenant can have this name"""
SECRET_BYTES = 32


def _tenant(value: str) -> str:
    if value != NO_TENANT and not re.fullmatch(NAME, value):
        raise ValueError(f"must be the name of a tenant, or {NO_TENANT} for none")
    return value


def _login(value: SecretStr) -> SecretStr:
    user, colon, password = value.get_secret_value().partition(":")
    if not (user and colon and password):
        raise ValueError("must be user:password")
    return value


def _long(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value().encode()) < SECRET_BYTES:
        raise ValueError(f"must be {SECRET_BYTES} bytes at least")
    return value


def _roles(value: str) -> str:
    for each in value.split(","):
        name, _, scope = (part.strip() for part in each.partition("="))
        if not name or scope not in ("read", "write", "operate", "admin"):
            raise ValueError("must be ROLE=SCOPE, separated by commas, with read, write, operate or admin")
    return value


Roles = Annotated[str, AfterValidator(_roles)]
Tenant = Annotated[str, AfterValidator(_tenant)]
Login = Annotated[SecretStr, AfterValidator(_login)]


def _by_kind(value: SecretStr) -> SecretStr:
    passwords(value)
    return value


def passwords(value: SecretStr | None) -> dict[str, str]:
    """The password of each kind of service in CROCHET_ROLE_PASSWORDS; raises ValueError."""
    pairs = value.get_secret_value().split() if value is not None else []
    found = {kind: password for kind, _, password in (pair.partition("=") for pair in pairs)}
    wrong = [
        kind for kind, password in found.items() if kind not in ROLES or not re.fullmatch(r"[\w.~-]{8,}", password)
    ]
    if wrong or len(found) < len(pairs):
        raise ValueError(
            f"must be pairs such as api=PASSWORD, one for each of {', '.join(ROLES)} at the most; a password has"
            " letters, digits and -._~ only, eight at least"
        )
    return found


RolePasswords = Annotated[SecretStr, AfterValidator(_by_kind)]
SigningSecret = Annotated[SecretStr, AfterValidator(_long)]

# ── numbers ─────────────────────────────────────────────────────────────────────────────────────

Seconds = Annotated[float, Field(ge=0.001, le=86_400, allow_inf_nan=False)]
NUMBERS: dict[Any, Callable[[str], float]] = {int: values.whole, int | None: values.whole, float: values.decimal}
"""how the text of each type of number is read"""
