"""Relays of a run: each poll is an activity of a simulated relay."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from crochet_tasks import publish
from crochet_tasks.db.process import here
from crochet_tasks.errors import CrochetError
from crochet_tasks.services.relay import Relay
from tests.simulation.bench import RELAYS
from tests.simulation.scheduler import Machine

if TYPE_CHECKING:
    from tests.simulation.world import World


class Relays:
    """What a relay does in a poll."""

    def __init__(self, world: World) -> None:
        self._world = world

    def begin(self, what: str, step: Callable[[Relay], object]) -> None:
        machine = self._world.choices.of(self._world.free(RELAYS))
        self._world.begin(machine, what, lambda: self._polls(machine, step))

    def _polls(self, machine: Machine, step: Callable[[Relay], object]) -> None:
        """As Relay.run: an error ends this poll only."""
        try:
            step(Relay(machine.process, threading.Event()))
        except CrochetError as error:
            self._world.log(f"{machine.name}: {error.code}")

    def publish(self, _relay: Relay) -> None:
        publish.publish_all()
        if self._world.settings.published_limit == 1 and not self._world.current().dead:
            count = "SELECT count(*), count(published_at) FROM work WHERE state = 'open' AND kind = 'search'"
            [(searches, out)] = self._world.store.rows(count)
            if 0 < out < searches:
                self._world.reached("no more searches were published than may be")

    def maintain(self, relay: Relay) -> None:
        if self._world.network.dead:
            self._world.reached("a dead letter was recorded")
        relay.maintain()

    def sweep(self, relay: Relay) -> None:
        relay.delete_expired()

    def alone(self, *steps: Callable[[Relay], object]) -> None:
        """One relay takes these steps, without a fault."""
        for step in steps:
            self._world.alone("r0", f"{step.__name__}s", lambda step=step: step(Relay(here(), threading.Event())))  # type: ignore[misc]
