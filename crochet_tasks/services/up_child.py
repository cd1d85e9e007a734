"""The command line as a process that ends with the one that started it, and so do its own children.

    python -m crochet_tasks.services.up_child PARENT COMMAND ...

Even when PARENT is killed nothing of it stays. (A signal on the death of the parent is sent when the *thread* that
started the child ends: whoever uses this starts children from a thread that stays.)
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with(parent: int) -> None:
    """Be killed when `parent` ends; our children, forked later, when we do."""
    libc = ctypes.CDLL(None, use_errno=True)
    ours = os.getpid()

    def die_with(parent: int) -> None:
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "cannot ask for the end of the parent")
        if os.getppid() != parent:  # it ended before we could ask
            os._exit(128 + signal.SIGKILL)

    def in_child() -> None:
        nonlocal ours
        parent, ours = ours, os.getpid()
        die_with(parent)

    die_with(parent)
    os.register_at_fork(after_in_child=in_child)


def main() -> None:
    end_with(int(sys.argv.pop(1)))
    from crochet_tasks import cli

    cli.main()


if __name__ == "__main__":
    main()
