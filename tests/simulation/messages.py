"""Messages of a run: tasks send them; workers get them late, twice, in any order or never."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crochet_tasks.app import Step
from crochet_tasks.broker.messages import Message
from tests.simulation import checks
from tests.simulation.bench import RELAYS, WORKERS
from tests.simulation.network import Sent
from tests.simulation.scheduler import Activity

if TYPE_CHECKING:
    from tests.simulation.world import World


class Messages:
    """What happens to messages; a delivery is an activity of a simulated worker."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._newest: dict[str, int] = {}

    def publish(self, step: Step, call: Message) -> None:
        """A task is sent a message, by whatever activity runs."""
        activity = self._world.current()
        activity.at("publish", lambda: self._send(activity.machine.name, step, call))

    def _send(self, sender: str, step: Step, call: Message) -> None:
        items = set(call.items)
        for other in self._world.scheduler.live:
            about = other.about
            if isinstance(about, Sent) and other.machine.name != sender and items & set(about.call.items):
                other.overtaken = True
                self._world.reached("work was published again while a worker had it")
        for sent in self._world.network.ready:
            if sent.step.name == step.name and items & set(sent.call.items) and {sender, sent.sender} == {*RELAYS}:
                self._world.reached("two relays published the same work")
        sent = self._world.network.send(step, call, sender, self._world.versions.get(call.corpus, 0))
        self._world.log(f"{sender} sends {sent}: {sent.call}")

    def deliver(self, place: int) -> None:
        sent = self._world.network.ready.pop(place)
        machine = self._world.choices.of(self._world.free(WORKERS))
        if sent.number < self._newest.get(sent.queue, 0):
            self._world.reached("a message was overtaken by a later one")
        self._newest[sent.queue] = max(sent.number, self._newest.get(sent.queue, 0))
        if sent.step.name == "orthos.store":
            if self._world.live("orthos.store", sent.call.corpus):
                self._world.reached("two searches stored at the same time")
            if self._world.versions.get(sent.call.corpus, 0) > sent.version:
                self._world.reached("a version came between search and store")
        if sent.step.name == "best.part" and self._world.live("best.part", sent.call.corpus):
            self._world.reached("two parts of a search for the best ran at the same time")
        sent.taken = False
        self._world.begin(machine, str(sent), lambda: self.work(sent), sent)

    def work(self, sent: Sent) -> None:
        """As a Celery worker does it: run the task, then acknowledge the message or reject it."""
        activity = self._world.current()
        request = {"id": sent.id, "hostname": activity.machine.name, "delivery_info": {}}
        done = self._world.bench.tracer(sent.step)(sent.id, [sent.payload()], {}, request)
        if not activity.dead:
            state = "SUCCESS" if done.info is None else done.info.state
            if done.info is not None:
                checks.injected(done.info.retval if state == "FAILURE" else done.info.retval.exc)
            activity.at("ack", lambda: self._acknowledge(sent, state))

    def _acknowledge(self, sent: Sent, state: str) -> None:
        self._world.log(f"{sent} ends as {state}")
        if sent.taken:
            return  # it went to another worker when this one's connection was lost
        sent.taken = True
        if state == "FAILURE":
            self._world.network.reject(sent, "rejected")
        else:
            self._world.network.acknowledge(sent)

    def disown(self, activity: Activity) -> None:
        """A worker loses its connection to the broker, and goes on."""
        sent: Sent = activity.about
        self._world.log(f"{activity.machine.name} loses {sent}")
        self._world.reached("a message was delivered again while its first worker lived")
        sent.taken = True
        again = Sent(sent.number, sent.step, sent.call, sent.body, sent.sender, sent.version, sent.returned)
        activity.overtaken = True
        self.give_back(again)

    def copy(self, sent: Sent) -> None:
        self._world.log(f"{sent} comes once more")
        self._world.reached("a message of work that was done came once more")
        self._world.network.ready.append(Sent(sent.number, sent.step, sent.call, sent.body, sent.sender, sent.version))

    def lose(self, place: int) -> None:
        self._world.log(f"{self._world.network.ready.pop(place)} is lost")
        self._world.reached("a message was lost")

    def lose_all(self) -> None:
        self._world.log("the broker loses everything")
        self._world.reached("all messages were lost")
        self._world.network.ready.clear()

    def give_back(self, sent: Sent) -> None:
        """The broker takes back a message whose worker died or lost its connection."""
        if self._world.network.return_to_queue(sent):
            self._world.reached("a message's deliveries were used up")
