"""What every service does first: its log, and in it the settings that it runs with."""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping
from types import MappingProxyType

from crochet_tasks.settings import Settings, version
from crochet_tasks.telemetry import logs

log = logging.getLogger(__name__)

READY = "ready_for_work"
"""the event in the log of a service that has begun to serve; `crochet up` waits for it"""

COLLECT = (2_000, 10, 10)
"""thresholds of the garbage collector of a service that runs; `cli.program` has it look less often until then"""


def imported() -> None:
    """What is imported by now is never garbage: it is not looked at any more, and children forked later share it."""
    gc.freeze()
    gc.set_threshold(*COLLECT)


def begin(service: str, settings: Settings, given: Mapping[str, object] = MappingProxyType({})) -> None:
    """Set up the log, and write into it which settings are set, masked, and warnings about them.

    Raises InvalidSetting where a path among them cannot be used.
    """
    logs(service, settings)
    found = {each.variable: each.value for each in settings.effective(given) if each.source != "default"}
    log.info("settings", extra={"version": version(), "set": found})
    for problem in settings.warnings():
        log.warning("settings_warning", extra={"problem": problem})
    for wrong in settings.path_problems():
        raise wrong
