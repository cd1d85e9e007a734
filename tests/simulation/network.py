"""The broker of a run: it keeps messages until the run delivers, copies or loses them, and the letters of the dead."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kombu.serialization import dumps, loads, prepare_accept_content

from crochet_tasks.app import Step
from crochet_tasks.broker import queues
from crochet_tasks.broker.messages import Message
from crochet_tasks.broker.queues import DeadLetter, Depth

OLD_KEPT = 12
"""messages that were done with, which may come once more"""
_ACCEPTED = prepare_accept_content({"json", "msgpack"})


@dataclass
class Sent:
    """A message. `body`: as it travels. `returned`: how often its worker died or lost the connection."""

    number: int
    step: Step
    call: Message
    body: Any
    sender: str
    version: int = 0
    """of its corpus, when it was sent"""
    returned: int = 0
    taken: bool = field(default=False)

    @property
    def id(self) -> str:
        return f"message-{self.number}"

    @property
    def queue(self) -> str:
        return str(self.step.name).partition(".")[0]

    def payload(self) -> Any:
        return loads(self.body[2], self.body[0], self.body[1], accept=_ACCEPTED)

    def __str__(self) -> str:
        return f"{self.step.name} #{self.number}"


class Network:
    """Messages that are ready, in their order; those that were done with lately; dead letters."""

    def __init__(self, delivery_limit: int, now: Callable[[], float]) -> None:
        self._limit, self._now, self._numbers = delivery_limit, now, 0
        self.ready: list[Sent] = []
        self.old: list[Sent] = []
        self.dead: list[DeadLetter] = []
        self.point: Callable[[Callable[[], object]], object] = lambda act: act()
        """around the removal of a dead letter"""

    def send(self, step: Step, call: Message, sender: str, version: int) -> Sent:
        self._numbers += 1
        content_type, encoding, body = dumps(call.payload(), serializer=step.serializer or "json")
        sent = Sent(self._numbers, step, call, (content_type, encoding, body), sender, version)
        self.ready.append(sent)
        return sent

    def acknowledge(self, sent: Sent) -> None:
        self.old = [*self.old[1 - OLD_KEPT :], sent]

    def return_to_queue(self, sent: Sent) -> bool:
        """Its worker is gone: it is delivered again, or is dead; whether it is dead."""
        sent.returned += 1
        if sent.returned > self._limit:
            self.reject(sent, "delivery_limit")
            return True
        self.ready.insert(0, sent)
        return False

    def reject(self, sent: Sent, reason: str) -> None:
        at = dt.datetime.fromtimestamp(int(self._now()), dt.UTC)  # RabbitMQ's is in seconds
        payload = sent.payload()
        self.dead.append(DeadLetter(sent.queue, reason, sent.step.name, sent.id, payload, b"", at, 1))

    # ── what the relay asks ─────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def connected(self) -> Iterator[Network]:
        yield self

    def depths(self) -> dict[str, Depth]:
        ready = [sent.queue for sent in self.ready]
        found = {name: Depth(ready.count(name), 1) for name in queues.WORK}
        return found | {queues.dead(name): Depth(0, 0) for name in queues.WORK}

    @contextlib.contextmanager
    def dead_letters(self, most: int) -> Iterator[Iterator[tuple[DeadLetter, Callable[[], object]]]]:
        """A relay that takes a letter keeps it from others until it removes it or is gone."""
        taken: list[DeadLetter] = []

        def letters() -> Iterator[tuple[DeadLetter, Callable[[], object]]]:
            while self.dead and len(taken) < most:
                letter = self.dead.pop(0)
                taken.append(letter)
                yield letter, functools.partial(self.point, functools.partial(taken.remove, letter))

        try:
            yield letters()
        finally:
            self.dead[:0] = taken
