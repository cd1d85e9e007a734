"""Runs a program that dies with its parent and, when we are root, as the user `nobody`.

Postgres refuses to run as root. Instead of making a user or opening up folders for one, this file is
run as a script between us and the program: it gives up root, asks the kernel for a signal when the
parent dies, and becomes the program. It must do so after the change of user (which clears that
request) and in a fresh interpreter (code between fork and exec of a threaded process can dead-lock).

`nobody` may be unable to enter the folders above the program, say under a /root of mode 0700. Only then
it keeps one capability, CAP_DAC_READ_SEARCH: read and enter anything, write nothing. Folders above the
*data* need none: the program is started inside its data folder and refers to it as `HERE`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import signal
import struct
import sys
from collections.abc import Sequence
from typing import NamedTuple

HERE = "/proc/self/cwd"  # the kernel's own link to the working directory: following it enters no parent folder
REFUSED = 77  # exit status of the script: the program cannot be run as that user; its last output says why

# linux/prctl.h, linux/securebits.h, linux/capability.h
_PR_SET_PDEATHSIG, _PR_SET_SECUREBITS, _PR_SET_NO_NEW_PRIVS = 1, 28, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
_NO_SETUID_FIXUP = 1 << 2
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_READ_SEARCH = 2


class Account(NamedTuple):
    uid: int
    gid: int


def server_account() -> Account:
    """Who the server runs as: ourselves or, for root, `nobody`. Raises KeyError where there is no such user."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        entry = pwd.getpwuid(65534)  # what the kernel itself calls the user of no rights
    return Account(entry.pw_uid, entry.pw_gid)


def command(program: Sequence[str], account: Account, on_death: signal.Signals, needs: Sequence[str]) -> list[str]:
    """The command that becomes `program`, which gets `on_death` when the *thread* that spawned it ends.

    `needs` are the files and folders the program must be able to read.
    """
    script = [sys.executable, "-I", "-S", __file__]
    numbers = [str(os.getpid()), str(account.uid), str(account.gid), str(int(on_death)), str(len(needs))]
    return [*script, *numbers, *needs, *program]


def _main(arguments: list[str]) -> None:
    parent, uid, gid, on_death, count = (int(argument) for argument in arguments[:5])
    needs, program = arguments[5 : 5 + count], arguments[5 + count :]
    # Ours may be ignored (nohup) or Python's own, which would swallow the signal just before exec.
    signal.signal(on_death, signal.SIG_DFL)
    os.umask(0o077)
    try:
        if os.geteuid() == 0:
            _become(Account(uid, gid), needs)
        _prctl(_PR_SET_PDEATHSIG, on_death)
        if os.getppid() != parent:  # it died before it could be asked for
            return
        os.execv(program[0], program)
    except OSError as error:
        if os.getuid() == uid:
            advice = "install crochet where every user can read it, or run it as an ordinary user"
        else:
            advice = "run crochet as an ordinary user"
        sys.stderr.write(f"{program[0]} cannot run as user {uid} instead of root ({error}); {advice}\n")
        sys.exit(REFUSED)


def _become(account: Account, needs: Sequence[str]) -> None:
    with contextlib.suppress(OSError):  # no right to (a container): we shall get along without, or refuse
        # Or else the change of user drops every capability, and access(2), which Postgres
        # calls on its own programs, answers as if there were none.
        _prctl(_PR_SET_SECUREBITS, _NO_SETUID_FIXUP)
    os.setgroups([])
    os.setgid(account.gid)
    os.setuid(account.uid)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    keep = 1 << _CAP_DAC_READ_SEARCH
    try:
        _capset(effective=0, permitted=keep, inheritable=0)
    except PermissionError:  # root never had it
        _capset(effective=0, permitted=0, inheritable=0)
    if _unreadable(needs) is None:
        _capset(effective=0, permitted=0, inheritable=0)
        return
    with contextlib.suppress(PermissionError):
        _capset(effective=keep, permitted=keep, inheritable=keep)
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_READ_SEARCH)
    if (path := _unreadable(needs)) is not None:
        raise PermissionError(f"it cannot read {path}")


def _unreadable(needs: Sequence[str]) -> str | None:
    # Asked one by one: the capability grants reading alone, not reading and executing in one.
    return next((path for path in needs if not (os.access(path, os.R_OK) and os.access(path, os.X_OK))), None)


def _prctl(option: int, *values: int) -> None:
    words = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)][:4]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, *words) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _capset(*, effective: int, permitted: int, inheritable: int) -> None:
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    data = struct.pack("=6I", effective, permitted, inheritable, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    _main(sys.argv[1:])
