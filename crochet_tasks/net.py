"""Addresses: the sockets that services listen on, and the URLs of the servers they connect to."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qsl, unquote, unquote_plus, urlsplit

from crochet_tasks.errors import InvalidSetting


def listening(host: str, port: int, variable: str) -> socket.socket:
    """Return a socket that listens there. Raises InvalidSetting, which names `variable`, where that is impossible."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, UnicodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        problem = f"cannot listen on {host_port(host, port)}: {reason}"
        raise InvalidSetting(variable=variable, problem=problem) from error


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address; False for every name but `localhost`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*(?!\d+\.?$){_LABEL}\.?")


def is_host(text: str) -> bool:
    """Whether this can be a host: an IP address or a host name. Nothing is looked up."""
    return is_ip_address(text) or (len(text) <= 253 and text.isascii() and _NAME.fullmatch(text) is not None)


def is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def host_port(host: str, port: int) -> str:
    """Write host and port as in a URL: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def ip_address(host: str) -> str:
    """Return the IP address of a host that this machine listens on. Raises OSError where there is none."""
    return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][4][0])


def open_sockets() -> Iterator[socket.socket]:
    """Yield a duplicate of each socket that this process has open, for as long as the caller's step takes.

    For sockets that a library opened and gives no access to.
    """
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - numbers, not paths
        with contextlib.suppress(OSError):  # closed meanwhile
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                with socket.socket(fileno=os.dup(int(name))) as found:
                    yield found


# ── addresses with logins ───────────────────────────────────────────────────────────────────────
# Their errors are shown, so no message repeats a part of an address that may belong to a password.

ENCODE = "in user and password write @ as %40, / as %2F, : as %3A, ? as %3F, # as %23, % as %25"
_POSTGRES = "must be a Postgres address such as postgresql://user:password@host:5432/database"
_SET_BY_US = {
    "statement_timeout": "set CROCHET_STATEMENT_TIMEOUT",
    "lock_timeout": "set CROCHET_LOCK_TIMEOUT",
    "idle_in_transaction_session_timeout": "it follows CROCHET_STATEMENT_TIMEOUT",
    "timezone": "it is always UTC",
    "jit": "it is always off",
    "client_encoding": "it is always UTF8",
}
"""server parameters that `options` may not set, because the program does, and what to do instead"""
_CHOICES = {
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    "load_balance_hosts": ("disable", "random"),
    "gssencmode": ("disable", "prefer", "require"),
    "channel_binding": ("disable", "prefer", "require"),
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "ssl_min_protocol_version": ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"),
    "ssl_max_protocol_version": ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"),
}
"""libpq's words for them; with another one it fails as if the server did not answer"""
_WHOLE_NUMBERS = ("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
"""libpq reads them only when it has connected"""
_WHOLE = r"[0-9]{1,9}"
_SECONDS = r"[0-9]{1,9}(\.[0-9]{1,9})?"
_NUMBERS = {
    **dict.fromkeys(("db", "max_connections", "health_check_interval"), (_WHOLE, "a whole number")),
    **dict.fromkeys(("timeout", "socket_timeout", "socket_connect_timeout"), (_SECONDS, "a number of seconds")),
    "protocol": ("[23]", "2 or 3"),
    "ssl_cert_reqs": ("none|optional|required", "none, optional or required"),
}
"""what redis-py takes as the values of parameters: with others it fails when the first connection is made"""


def postgres_parameters(url: str) -> dict[str, str]:
    """Return libpq's connection parameters of a Postgres URL, as psql and SQLAlchemy write them.

    Every parameter is kept or refused. Raises ValueError with what is wrong.
    """
    scheme, _, rest = url.partition("://")
    if not re.fullmatch(r"(postgresql|postgres)(\+\w+)?", scheme) or not rest.strip():
        raise ValueError(_POSTGRES)
    found: dict[str, str] = {}
    login = re.fullmatch(r"([^:/?@]*)(?::([^@]*))?@(.*)", rest, re.DOTALL)
    if login is not None:
        if re.match(r"\d*(/[^?]*)?\?\w+=", login[2] or ""):  # host:port/database?name=a@b, or a password like that?
            raise ValueError(f"{_POSTGRES}; {ENCODE}")
        found = {"user": login[1], "password": login[2] or ""}
        rest = login[3]
    location, _, query = rest.partition("?")
    if "@" in location or "#" in location:
        raise ValueError(f"{_POSTGRES}; {ENCODE}")
    hosts, _, found["dbname"] = location.partition("/")
    found["host"], found["port"] = _hosts(hosts.split(","))
    found = {name: unquote(value) for name, value in found.items() if value}
    return _checked({**found, **_query(query)})


def _hosts(hosts: Sequence[str]) -> tuple[str, str]:
    """Take `host:port` pairs apart into libpq's two lists; an IPv6 address loses its brackets."""
    pairs = [re.fullmatch(r"(?:\[([^\[\]]*)\]|([^\[\]:]*))(?::(.*))?", host, re.DOTALL) for host in hosts]
    if not all(pairs) or not all(_is_port(pair[3] or "1") for pair in pairs if pair):
        raise ValueError(f"the port must be a number, an IPv6 address stands in brackets, and {ENCODE}")
    ports = [pair[3] or "" for pair in pairs if pair]
    return ",".join(pair[1] or pair[2] for pair in pairs if pair), ",".join(ports) if any(ports) else ""


def _is_port(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", text) is not None and 0 < int(text) < 65_536


def _query(query: str) -> dict[str, str]:
    """Return the parameters behind the `?`, all of which libpq knows."""
    if not query:
        return {}
    from psycopg import pq

    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    found: dict[str, list[str]] = {}
    for pair in query.split("&"):
        name, equals, value = (unquote_plus(part) for part in pair.partition("="))
        if not equals or name not in known:
            word = name if re.fullmatch(r"[A-Za-z_]{1,40}", name) and "@" not in query else "it"
            hint = "options=-csearch_path%3DNAME chooses a schema" if name == "schema" else ENCODE
            raise ValueError(f"behind the ? stands a parameter that Postgres does not know ({word}): remove it; {hint}")
        found.setdefault(name, []).append(value)
    if len(found.get("host", [])) > 1:  # SQLAlchemy's way: host=a:5432&host=b:5432
        host, port = _hosts(found["host"])
        found |= {"host": [host], "port": [port, *found.get("port", [])] if port else found.get("port", [])}
    for name, values in found.items():
        if len(values) > 1:
            raise ValueError(f"the parameter {name} is given twice")
    return {name: values[0] for name, values in found.items() if values}


def _checked(found: dict[str, str]) -> dict[str, str]:
    """Refuse what contradicts what the program sets itself, and what libpq or a library would misread."""
    if any("\0" in value for value in found.values()):  # libpq would not see what follows it: the host, perhaps
        raise ValueError("it holds a NUL character (%00): remove it")
    _check_hosts(found)
    if not re.fullmatch(r"-?[0-9]{1,9}", found.get("connect_timeout", "0")):
        raise ValueError("connect_timeout must be a whole number of seconds")
    for name in _WHOLE_NUMBERS:
        if not re.fullmatch(_WHOLE, found.get(name, "0")):
            raise ValueError(f"{name} must be a whole number")
    for name, choices in _CHOICES.items():
        if name in found and found[name] not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}")
    if found.get("client_encoding", "UTF8").upper() not in ("UTF8", "UTF-8"):
        raise ValueError("client_encoding is always UTF8: remove it")
    for name in re.findall(r"(?:-c\s*|--)([\w-]+)\s*=", found.get("options", "")):
        if (advice := _SET_BY_US.get(name.replace("-", "_").lower())) is not None:
            raise ValueError(f"options may not set {name}: {advice}")
    _check_with_libpq({name: value for name, value in found.items() if name not in _PLACE})
    return found


def _check_hosts(found: Mapping[str, str]) -> None:
    ports, hosts = found.get("port", "").split(","), found.get("host", found.get("hostaddr", "")).split(",")
    if not all(port == "" or _is_port(port) for port in ports) or len(ports) not in (1, len(hosts)):
        raise ValueError("the port must be a number from 1 to 65535: one for all hosts, or one for each")
    if not all(map(is_ip_address, filter(None, found.get("hostaddr", "").split(",")))):
        raise ValueError("hostaddr must be an IP address; a name stands in host")
    for host in filter(None, found.get("host", "").split(",")):
        if not host.startswith(("/", "@")) and not is_host(host):
            raise ValueError(f"the host is neither a host name nor an IP address; {ENCODE}")


_PLACE = ("host", "hostaddr", "port", "user", "password", "dbname", "passfile")
_NOWHERE = {"host": "/dev/null", "port": "1"}
"""a socket that cannot be: libpq checks all parameters before it tries to connect"""


def _check_with_libpq(parameters: Mapping[str, str]) -> None:
    """Refuse the values that libpq refuses: it reports them like a server that does not answer.

    With a PG* variable that libpq refuses nothing can be tried; the first connection reports it.
    """
    if not _accepted({}):
        return
    for name, value in parameters.items():
        if not _accepted({name: value}):
            raise ValueError(f"the parameter {name} has a value that libpq does not accept: correct or remove it")
    if not _accepted(parameters):
        raise ValueError(f"the parameters {', '.join(sorted(parameters))} contradict each other")


def _accepted(parameters: Mapping[str, str]) -> bool:
    from psycopg import conninfo, pq

    tried = pq.PGconn.connect_start(conninfo.make_conninfo("", **{**parameters, **_NOWHERE}).encode())
    try:
        return _NOWHERE["host"].encode() in tried.error_message
    finally:
        tried.finish()


def is_private_server(parameters: Mapping[str, str]) -> bool:
    """Whether these lead to the private server of a state folder: its socket lies in its data folder."""
    host = parameters.get("host", "")
    return host.startswith("/") and Path(host).resolve().parts[-2:] == PRIVATE_FOLDER


PRIVATE_FOLDER = ("postgres", "data")
"""in a state folder: where the private server keeps its data and its socket"""


def check_address(url: str, schemes: Sequence[str], parameters: Collection[str], example: str) -> None:
    """Raise ValueError unless the URL is one address with one of the schemes and, but for sockets, a host.

    `parameters`: the names that may stand behind the `?`.
    """
    problem = f"must be an address such as {example}"
    if url.count("://") > 1:
        raise ValueError(f"{problem}: one, not several")
    try:
        parts = urlsplit(url)
        whole = parts.scheme in schemes and (parts.scheme == "unix" or bool(parts.hostname)) and (parts.port or 1) > 0
    except ValueError:  # a port that is none
        raise ValueError(f"{problem}; {ENCODE}") from None
    if not whole or parts.fragment or "@" in parts.path + parts.query:
        raise ValueError(f"{problem}; {ENCODE}")
    if parts.hostname and not is_host(parts.hostname):
        raise ValueError(f"{problem}; the host is neither a host name nor an IP address; {ENCODE}")
    unknown = [pair.partition("=")[0] for pair in parts.query.split("&") if pair]
    if not set(unknown) <= set(parameters):
        allowed = ", ".join(sorted(parameters)) or "none"
        raise ValueError(f"it has a parameter behind the ? that is not used here (allowed: {allowed})")
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        pattern, meaning = _NUMBERS.get(name, ("(?s:.*)", ""))
        if not re.fullmatch(pattern, value):
            raise ValueError(f"the parameter {name} must be {meaning}")
