"""What a test does in a process that is forked for it alone."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable


def in_child(step: Callable[[], object], *, killed: bool = False) -> None:
    """Do something in a process that then ends or is killed; it has to succeed."""
    pid = os.fork()
    if pid == 0:
        try:
            step()
            os.kill(os.getpid(), signal.SIGKILL) if killed else os._exit(0)
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == (-signal.SIGKILL if killed else 0)
