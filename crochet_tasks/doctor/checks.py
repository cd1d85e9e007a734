"""Check what would keep crochet from working, and advise. Changes nothing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from crochet_tasks import readiness, settings
from crochet_tasks.db import schema, upkeep
from crochet_tasks.db.process import Process
from crochet_tasks.db.standby import Reads
from crochet_tasks.doctor import Check, services, well, wrong
from crochet_tasks.embedded import store
from crochet_tasks.embedded.folder import NEW_DATA_BYTES
from crochet_tasks.errors import CrochetError, DatabaseUnavailable, SchemaUnknown, ServerFailed
from crochet_tasks.settings import Settings
from crochet_tasks.terminal import numbers

OLDEST, NEWEST = 15, 18
"""versions of Postgres that the schema was tested on"""

OLD_SECONDS, IDLE_SECONDS = 3600.0, 600.0
"""from when on an open transaction is worth a word, and one in which nothing is done is wrong; as the alerts"""


def checks(**given: object) -> Iterator[Check]:
    """Check everything, in the order in which a command needs it; what cannot be checked is left out."""
    problems = Settings.problems(**given)
    for problem in problems:
        yield wrong("configuration", str(problem), "correct or unset that variable")
    if problems:
        for name in settings.misspelt():
            yield well("configuration", f"{name} is no setting", "docs/settings.md lists all settings")
        return
    configured = Settings.load(**given)
    for doubt in configured.warnings():
        yield well("configuration", doubt, "docs/settings.md lists all settings")
    for problem in configured.path_problems():
        yield wrong("configuration", str(problem), "correct or unset that variable")
    names = sorted(f"{settings.PREFIX}{name.upper()}" for name in configured.model_fields_set - set(given))
    yield well("configuration", f"set: {', '.join(names)}" if names else "all settings have their defaults")
    yield from _database(configured)
    yield from services.checks(configured)


def _database(configured: Settings) -> Iterator[Check]:
    if configured.database_url is not None:
        yield well("database", "CROCHET_DATABASE_URL names the server; the state folder is not used")
        yield from _server(configured, private=False)
        return
    folder = _state_folder(configured)
    yield from folder
    if not all(check.well for check in folder):
        return
    if store.data_folder(configured).exists():
        yield from _server(configured, private=True)
    else:
        yield well("database", "none yet", "'crochet run FILE' makes it")
        yield from _trial(configured)


def _state_folder(configured: Settings) -> list[Check]:
    folder = configured.state_dir.absolute()
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        return [wrong("state folder", f"{there} is not a directory", "choose another folder with --state")]
    found = str(folder) if there == folder else f"{folder}, not made yet"
    if not os.access(there, os.W_OK | os.X_OK):
        return [wrong("state folder", f"{there} is not writable", "choose another folder with --state")]
    made = [well("state folder", found)]
    free = shutil.disk_usage(there).free
    if free < NEW_DATA_BYTES:
        advice = "make room, or choose a folder on another disk with --state"
        made.append(wrong("disk", f"{numbers.size(free)} are free at {there}", advice))
    else:
        made.append(well("disk", f"{numbers.size(free)} are free"))
    holder = _holder(folder / "postgres" / "lock")
    if holder is not None:
        advice = "wait for it, or choose another folder with --state"
        made.append(wrong("state folder", f"in use by another crochet (process {holder})", advice))
    return made


def _holder(lock: Path) -> str | None:
    """The process that uses the state folder with this lock file, if one does."""
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(handle, 20, 0).decode(errors="replace") or "unknown"
    finally:
        os.close(handle)
    return None


def _trial(configured: Settings) -> Iterator[Check]:
    """Start the private server in a folder of its own, to see whether it would."""
    with tempfile.TemporaryDirectory(prefix="crochet-doctor-") as folder:
        for check in _server(configured.model_copy(update={"state_dir": Path(folder)}), private=True):
            if check.name == "server":
                yield check._replace(found=f"{check.found} (tried in a temporary folder)")


def _server(configured: Settings, *, private: bool) -> Iterator[Check]:
    with contextlib.ExitStack() as stack:
        try:
            process = stack.enter_context(store.connected(configured))
            made = [_server_version(process), _schema(process, private=private), _transactions(process)]
        except CrochetError as error:
            yield wrong("server", f"{error} [{error.code}]", _ADVICE.get(type(error), ""))
            return
        yield from made
        if configured.database_read_url is not None:
            yield _standby(process, configured.database_read_url.get_secret_value())


_ADVICE: dict[type[CrochetError], str] = {
    DatabaseUnavailable: "start the server, or correct CROCHET_DATABASE_URL",
    ServerFailed: "the server's log says more",
}
"""what to do about an error that does not say it itself"""


def _standby(process: Process, url: str) -> Check:
    try:
        with contextlib.closing(Reads(process.database, url, process.settings, connections=1)) as reads:
            if reads.is_current():
                return well("standby", "has all that the primary has")
    except CrochetError as error:
        return wrong("standby", f"{error} [{error.code}]", "correct CROCHET_DATABASE_READ_URL")
    advice = "start it, or correct CROCHET_DATABASE_READ_URL; until then the API reads the primary"
    return wrong("standby", "does not answer, is behind, or follows the primary no more", advice)


def _server_version(process: Process) -> Check:
    with process.database.transaction() as connection:
        version = schema.server_version(connection)
    major, found = int(version.split(".")[0]), f"Postgres {version} answers"
    if major < OLDEST:
        return wrong("server", found, f"use Postgres {OLDEST} or newer")
    hint = f"crochet was tried with {OLDEST} to {NEWEST}" if major > NEWEST else ""
    return well("server", found, hint)


def _transactions(process: Process) -> Check:
    """Whether somebody has a transaction open for so long that vacuum cannot do its work."""
    with process.database.transaction() as connection:
        found = upkeep.transactions(connection)
    idle = max(found, key=lambda each: each.idle, default=None)
    if idle is not None and idle.idle >= IDLE_SECONDS:
        how = (
            f"SELECT pg_terminate_backend({idle.pid})"
            if idle.pid is not None
            else "COMMIT PREPARED or ROLLBACK PREPARED"
        )
        advice = f"until it ends, nothing that is deleted makes room; end it with '{how}', or in its program"
        return wrong("transactions", f"{idle.who} has done nothing in one for {numbers.seconds(idle.idle)}", advice)
    if found and found[0].age >= OLD_SECONDS:
        hint = "until it ends, nothing that is deleted makes room; a backup or an archive may take so long"
        return well("transactions", f"{found[0].who} has had one open for {numbers.seconds(found[0].age)}", hint)
    return well("transactions", "none is old")


def _schema(process: Process, *, private: bool) -> Check:
    try:
        readiness.check_database(process.database)
    except SchemaUnknown as error:
        found, advice = str(error.context["found"]), str(error.context["advice"])
        if advice == schema.NEWER:
            return wrong("schema", f"'{found}' is unknown here", advice)
        if private:
            return well("schema", found, f"the next command makes it {schema.HEAD}")
        return wrong("schema", found, advice)
    with process.database.transaction() as connection:
        return well("schema", str(schema.revision(connection)))
