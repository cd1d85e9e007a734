"""Runs a server as another user, if need be, and leaves no process of it behind.

Run as a script between a test process and a server: `keeper.py PARENT UID GID LAST_SIGNAL PROGRAM ARGUMENTS...`.

    it gets                           it does
    SIGTERM, SIGINT, SIGQUIT          hands the signal on to the server
    SIGUSR1                           kills everything
    the server ends                   kills what the server left, ends with the server's status
    the test process ends, somehow    sends the server LAST_SIGNAL, gives it a moment, kills everything

"Everything" includes what made itself a daemon (epmd, which Erlang starts): orphans below us become our children.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

POLL_SECONDS = 0.2
LAST_SECONDS = 3.0  # that a server has to put itself in order when the tests are gone
KILL_ALL = signal.SIGUSR1
HANDED_ON = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}
_WATCHED = {*HANDED_ON, KILL_ALL, signal.SIGCHLD}
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def _main(arguments: list[str]) -> int:
    parent, uid, gid, last_signal = (int(argument) for argument in arguments[:4])
    # Blocked signals wait for us: none is lost, none interrupts.
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "this kernel does not hand orphans to us")

    def in_child() -> None:
        # Comes after the change of user, which clears the request. Even our own death leaves no server.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())

    same = uid == os.geteuid()  # and then there may be no right to change anything
    server = subprocess.Popen(
        arguments[4:],
        user=None if same else uid,
        group=None if same else gid,
        extra_groups=None if same else [],
        umask=0o077,
        close_fds=False,
        preexec_fn=in_child,  # noqa: PLW1509 - we have one thread, so code between fork and exec is safe
    )
    deadline: float | None = None
    while not _reap(server):
        received = signal.sigtimedwait(_WATCHED, POLL_SECONDS)
        number = received.si_signo if received is not None else None
        if number == KILL_ALL or (deadline is not None and time.monotonic() > deadline):
            break
        if number in HANDED_ON:
            server.send_signal(number)
        if deadline is None and os.getppid() != parent:
            server.send_signal(last_signal)
            deadline = time.monotonic() + LAST_SECONDS
    _kill_children(server)
    status: int = server.returncode
    return status if status >= 0 else 128 - status


def _reap(server: subprocess.Popen[bytes]) -> bool:
    """Whether the server has ended. Orphans that ended are no business of ours, but their remains are."""
    while server.returncode is None:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == 0:
            break
        if pid == server.pid:
            server.returncode = os.waitstatus_to_exitcode(status)
    return server.returncode is not None


def _kill_children(server: subprocess.Popen[bytes]) -> None:
    """Until there are none: the children of those we killed become ours."""
    while True:
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0] != 0:
                if ended[0] == server.pid:
                    server.returncode = os.waitstatus_to_exitcode(ended[1])
        except ChildProcessError:
            return
        time.sleep(0.002)  # a killed child ends in a moment, and its own children then become ours


def _children() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                # pid (name) state parent ...: the name may hold anything, so look behind its last parenthesis
                if int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1]) == os.getpid():
                    found.append(int(entry.name))
    return found


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
