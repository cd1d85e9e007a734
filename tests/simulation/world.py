"""A run: simulated workers, relays and clients, what happens to them, and the end, when nothing is open any more."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from typing import Any

from crochet_tasks import merging, publish
from crochet_tasks.db import corpora
from crochet_tasks.db.process import here
from crochet_tasks.engine import search
from crochet_tasks.errors import CrochetError
from crochet_tasks.operate import actions
from tests.simulation import checks, patches
from tests.simulation.bench import CLIENTS, LEASE, RELAYS, SIZES, WORKERS, Bench
from tests.simulation.best import Best
from tests.simulation.choices import Choices
from tests.simulation.clients import Clients, Planned, Post
from tests.simulation.corpora import GOOD, LIMITS, POISONED, WORDLESS
from tests.simulation.ledger import STRUCK, Ledger
from tests.simulation.messages import Messages
from tests.simulation.network import Network, Sent
from tests.simulation.relays import Relays
from tests.simulation.scheduler import POINTS, Activity, Fault, Machine, Scheduler

FAMILIES = (
    *("overtaking", "deaths", "errors", "refusals", "copies", "losses", "clocks"),
    *("cancels", "operators", "deletions", "budgets", "merges", "repeats", "best", "pauses"),
)
"""kinds of events; each run has some of them, so that each meets the others in every combination"""
ROUNDS = 30
"""of the end: each lets all leases expire, publishes and delivers everything"""


OUTWARD = 2.0
"""share of new pairs from which on a window is enumerated: none has so many"""
IDLE = 8
"""steps in which nothing goes on, after which a run ends"""


class World:
    """One run. `lines`: what happened, in order; `digest`: their hash."""

    def __init__(self, bench: Bench, choices: Choices, ledger: Ledger) -> None:
        self.bench, self.store, self.choices, self.reached = bench, bench.store, choices, ledger.reached
        self.lines: list[str] = []
        self.store.reset()
        self.on = {family for family in FAMILIES if choices.below(2)}
        size = choices.below(len(SIZES))
        search.ENUMERATE_FROM = choices.of([0.2, OUTWARD])
        self.hurried = "best" in self.on and choices.one_in(4)
        """whether parts of searches for the best have time for one start only"""
        self.planned = self._corpora()
        self.posts = self._posts()
        self.steps = 30 + choices.below(80)
        self.stubborn = choices.of([None, None, *publish.TASKS.values(), "orthos.store"])
        """a task that always fails, until the end"""
        self.log(f"with {' '.join(sorted(self.on))}; sizes {size}, {self.steps} steps")

        self.scheduler = Scheduler.current = Scheduler(self.store.monitor, self.log)
        self.scheduler.struck, self.scheduler.refuse_message = self._struck, patches.refuse_message
        self.scheduler.noticed = self.reached
        machines = [bench.machine(name, size) for name in (*WORKERS, *RELAYS, *CLIENTS)]
        self.machines = {machine.name: machine for machine in machines}
        self.settings = machines[0].process.settings
        self.network = Network(self.settings.delivery_limit, lambda: self.store.now)
        self.network.point = lambda act: self.current().at("ack", act)

        self.ids: dict[int, Planned] = {}
        self.versions: dict[int, int] = {}
        self.deleted: set[int] = set()
        self.ingested_by: dict[int, set[str]] = {}
        self.acknowledged: dict[str, Post] = {}
        """texts whose acceptance a client has received, by name"""
        self.withdrawn: set[str] = set()
        """texts that a client or an operator has asked to cancel or drop"""
        self.emptied: set[int] = set()
        """corpora of which a client has asked to cancel all work"""
        self.held = 0
        self.clients, self.messages, self.relays, self.best = Clients(self), Messages(self), Relays(self), Best(self)
        self._idle = 0
        self._reader = checks.Reader()

    def _corpora(self) -> list[Planned]:
        number = self.choices.weighted([(8, 1), (2, 2), (1, 3)])
        return [
            Planned(
                f"corpus-{place}",
                self.choices.of(LIMITS),
                1 + self.choices.below(12) if "budgets" in self.on else None,
            )
            for place in range(number)
        ]

    def _posts(self) -> list[Post]:
        posts: list[Post] = []
        for corpus in self.planned:
            bodies = list(GOOD)
            for _ in range(1 + self.choices.below(3)):
                body = bodies.pop(self.choices.below(len(bodies)))
                if self.choices.one_in(8):
                    body = self.choices.of([WORDLESS, POISONED])
                posts.append(Post(corpus, body, f"key-{len(posts)}"))
        return posts

    # ── a run ───────────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        """Everything; raises AssertionError where something is not as it must be."""
        patches.Seams.world = self
        try:
            for corpus in self.planned:
                self.alone("c0", f"makes {corpus.name}", lambda corpus=corpus: self._make(corpus))  # type: ignore[misc]
            while self.steps:
                self._step()
            self._end()
            checks.everything(self)
        finally:
            self._leave()

    def _leave(self) -> None:
        """Nothing of the run is left: its activities end, with their transactions."""
        for activity in list(self.scheduler.live):
            with contextlib.suppress(AssertionError):
                self.scheduler.kill(activity)
        patches.Seams.world = Scheduler.current = None

    @property
    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()

    def log(self, line: str) -> None:
        self.lines.append(line)

    def _make(self, corpus: Planned) -> None:
        with here().database.transaction() as connection:
            made = corpora.get_or_create(connection, corpus.name, corpus.limits._asdict(), budget=corpus.budget)
        self.ids[made.id] = corpus

    def _step(self) -> None:
        """One event; that an activity goes on to its next point counts as none."""
        event = self.choices.weighted(self._events())
        event()
        self._idle = 0 if self.scheduler.live or self.network.ready else self._idle + 1
        if self._idle > IDLE:
            self.steps = 1
        if event != self._go_on:
            self.steps -= 1
            self._reader.read(self)

    def _events(self) -> list[tuple[int, Callable[[], None]]]:
        """What can happen now, with weights; first what goes on without trouble."""
        on, ready, runnable = self.on, self.network.ready, self.scheduler.runnable()
        free = {kind: self.free(names) for kind, names in (("w", WORKERS), ("r", RELAYS), ("c", CLIENTS))}
        live, old = self.scheduler.live, self.network.old
        searching = any(str(each.about).startswith(("search.part", "best.part")) for each in live)
        storing = any(str(each.about).startswith("orthos.store") for each in live)
        idle = not (ready or live or self.posts)  # until a lease ends, or a pause
        busy = [each for each in live if each.machine.name in WORKERS and not each.about.taken]
        best = [each for each in busy if str(each.about).startswith("best.part")]
        possible: list[tuple[bool, int, Callable[[], None]]] = [
            (bool(ready and free["w"]), 30, lambda: self.messages.deliver(0)),
            (bool(runnable), 160, self._go_on),
            (bool(self.posts and free["c"]), 8 if searching or not self.versions else 2, self.clients.post),
            (bool(free["r"]), 1 if ready or live else 8, lambda: self.relays.begin("publishes", self.relays.publish)),
            (bool(free["r"]), 8 if idle else 2, lambda: self.relays.begin("maintains", self.relays.maintain)),
            (idle, 12, lambda: self._jump(self.choices.of([LEASE + 10, 2.0]))),
            (bool(free["r"]) and "deletions" in on, 2, lambda: self.relays.begin("sweeps", self.relays.sweep)),
            (len(ready) > 1 and bool(free["w"]), 15, lambda: self.messages.deliver(self.choices.below(len(ready)))),
            ("copies" in on and bool(busy), 3, lambda: self.messages.disown(self.choices.of(busy))),
            ("copies" in on and bool(best), 9, lambda: self.messages.disown(self.choices.of(best))),
            ("copies" in on and bool(old), 2, lambda: self.messages.copy(self.choices.of(old))),
            ("losses" in on and bool(ready), 3, lambda: self.messages.lose(self.choices.below(len(ready)))),
            ("losses" in on and len(ready) > 1, 1, self.messages.lose_all),
            ("deaths" in on and bool(live), 2, lambda: self._kill(self.choices.of(live))),
            ("clocks" in on, 1, lambda: self._jump(self.choices.of([2.0, LEASE + 10, 11 * LEASE]))),
            ("clocks" in on, 1, lambda: self._jump(-100.0)),
            (self._waits() is not None, 1, self._time_out),
            (
                bool(free["c"]) and "cancels" in on and bool(self.acknowledged),
                6 if searching else 2,
                self.clients.cancel,
            ),
            (
                bool(free["c"]) and "operators" in on,
                1,
                lambda: self.clients.operate(self.choices.of(["retry", "drop"])),
            ),
            (bool(free["c"]) and "deletions" in on and bool(self.versions), 3 if searching else 1, self.clients.delete),
            (bool(free["c"]) and "budgets" in on and bool(self.ids), 1, self.clients.budget),
            (bool(free["c"]) and "pauses" in on and bool(self.ids), 2, self.clients.pause),
            (bool(free["c"]) and {"cancels", "operators"} <= on and bool(self.versions), 1, self.clients.cancel_all),
            (bool(free["c"]) and "repeats" in on and bool(self.acknowledged), 1, self.clients.post_again),
            (bool(free["c"]) and "best" in on and bool(self.versions), 4, self.best.ask),
            (bool(free["c"]) and bool(self.best.asked), 1, self.best.stop),
            (bool(free["w"]) and "merges" in on and bool(self.versions), 6 if storing else 3, self._merge),
        ]
        return [(weight, event) for is_possible, weight, event in possible if is_possible] or [(1, lambda: None)]

    def free(self, names: tuple[str, ...]) -> list[Machine]:
        return [self.machines[name] for name in names if self.machines[name].activity is None]

    def live(self, what: str, corpus: int) -> list[Activity]:
        """Activities that run a task for a corpus."""
        return [
            each
            for each in self.scheduler.live
            if isinstance(each.about, Sent) and each.about.step.name == what and each.about.call.corpus == corpus
        ]

    def current(self) -> Activity:
        assert self.scheduler.running is not None
        return self.scheduler.running

    # ── activities ──────────────────────────────────────────────────────────────────────────

    def begin(self, machine: Machine, what: str, step: Callable[[], object], about: Any = None) -> None:
        """Start an activity, with a fault or without."""
        activity = Activity(self.scheduler, machine, what, step)
        activity.about = about
        activity.switching = "overtaking" in self.on and bool(self.choices.below(3))
        activity.fault = self._fault(activity)
        self.log(f"{machine.name} begins: {what}")
        self.scheduler.start(activity)
        if activity.over:
            self._over(activity)

    def _fault(self, activity: Activity) -> Fault | None:
        about = activity.about
        if "errors" in self.on and isinstance(about, Sent) and about.step.name == self.stubborn:
            return Fault("statement", (1, 2), "error", after=False)  # the second is that of the try in place
        if "deaths" in self.on and self.network.dead and activity.what == "maintains":
            return Fault("ack", (1,), "killed", after=False)
        kinds = []
        if "deaths" in self.on:
            kinds += [("publish" if activity.what == "publishes" else kind, "killed") for kind in POINTS]
        if "errors" in self.on:
            kinds += [("statement", "error"), ("commit", "error")]
        if "refusals" in self.on:
            kinds += [("publish", "error")]
        if not kinds or not self.choices.one_in(3):
            return None
        kind, what = self.choices.of(kinds)
        number = 1 + self.choices.below(8 if kind == "statement" else 2)
        return Fault(kind, (number,), what, after=bool(self.choices.below(2)))

    def alone(self, name: str, what: str, step: Callable[[], object], about: Any = None) -> None:
        """An activity without a fault, to its end."""
        activity = Activity(self.scheduler, self.machines[name], what, step)
        activity.about = about
        self.log(f"{name} begins: {what}")
        self.scheduler.start(activity)
        while not activity.over:
            assert activity.waits is None, f"{what} waits for a lock that no activity holds"
            self.scheduler.resume(activity)
        self._over(activity)

    def _go_on(self) -> None:
        activity = self.choices.of(self.scheduler.runnable())
        self.scheduler.resume(activity)
        if activity.over:
            self._over(activity)

    def _over(self, activity: Activity) -> None:
        """What the rest of the world makes of the end of an activity."""
        self.log(f"{activity.machine.name} ends: {activity.what}{' (dead)' if activity.dead else ''}")
        if activity.error is not None:
            raise AssertionError(f"{activity.machine.name} {activity.what}: {activity.error!r}") from activity.error
        if not activity.dead:
            return
        activity.machine.restart(self.store.monitor)
        about = activity.about
        if isinstance(about, Sent) and not about.taken:
            self.messages.give_back(about)
        if isinstance(about, Post) and about.key not in {post.key for post in self.acknowledged.values()}:
            self.posts.insert(0, about._replace(repeated=True))
            self.reached("a client died before it had its answer")

    def _kill(self, activity: Activity) -> None:
        self.log(f"{activity.machine.name} {activity.what} is killed")
        if activity.machine.name in WORKERS:
            waits = activity.waits is not None
            self.reached(f"a worker died {'while it waited for a lock' if waits else 'in a transaction'}")
        self.scheduler.kill(activity)
        self._over(activity)

    def _waits(self) -> Activity | None:
        return next((each for each in self.scheduler.live if each.waits is not None), None)

    def _time_out(self) -> None:
        activity = self._waits()
        assert activity is not None
        self.log(f"{activity.machine.name} {activity.what}: its wait for a lock times out")
        self.reached("a wait for a lock timed out")
        self.scheduler.end_wait(activity, "timeout")
        if activity.over:
            self._over(activity)

    def _struck(self, activity: Activity, fault: Fault) -> None:
        """Enter a fault in the ledger."""
        who = {"w": "worker", "r": "relay", "c": "client"}[activity.machine.name[0]]
        for whom in (who, "any"):
            if state := STRUCK.get((whom, fault.kind, fault.what, fault.after)):
                self.reached(state)

    # ── clocks and merges ───────────────────────────────────────────────────────────────────

    def _jump(self, seconds: float) -> None:
        self.log(f"the clock goes by {seconds:g} s")
        if seconds < 0:
            self.reached("the clock went back")
        elif seconds > LEASE:
            self.reached("the clock jumped beyond the leases")
        self.store.set_clock(self.store.now + seconds)

    def _merge(self) -> None:
        number = self.choices.of(sorted(self.ids))

        def merge() -> None:
            try:
                merging.merge_all(number)
            except CrochetError as error:  # as its task
                self.log(f"merge: {error.code}")

        self.begin(self.choices.of(self.free(WORKERS)), f"merges {number}", merge, _NoMessage())

    # ── the end ─────────────────────────────────────────────────────────────────────────────

    def _end(self) -> None:
        """No more faults: everything comes to rest, or the run has failed."""
        self.log("the end")
        self.on, self.stubborn = set(), None
        for activity in self.scheduler.live:
            activity.fault = None
        while self.scheduler.live:
            self._finish_one()
        for _ in range(ROUNDS):
            while self.posts:
                post = self.posts.pop(0)
                self.alone("c0", f"posts {post.key}", lambda post=post: self._last_post(post))  # type: ignore[misc]
            self.store.set_clock(self.store.now + 20 * LEASE)
            self.relays.alone(self.relays.maintain, self.relays.publish)
            while self.network.ready:
                self._deliver_alone(self.network.ready.pop(0))
            self.relays.alone(self.relays.maintain, self.relays.sweep)
            if self._at_rest():
                for number in self.versions:
                    self.alone("w0", f"merges {number}", lambda number=number: merging.merge_all(number))  # type: ignore[misc]
                return
            self.alone("c0", "repairs", self._repair)
        left = self.store.rows(
            "SELECT corpus, kind, state, attempts, error->>'message' FROM work WHERE state <> 'done'"
        )
        raise AssertionError(f"work is left: {left}")

    def _finish_one(self) -> None:
        before = list(self.scheduler.live)
        ready = self.scheduler.runnable()
        assert ready, f"deadlock: {[(each.machine.name, each.what) for each in before]}"
        ready[0].switching = False
        self.scheduler.resume(ready[0])
        if ready[0].over:
            self._over(ready[0])

    def _deliver_alone(self, sent: Sent) -> None:
        sent.taken = False
        self.alone("w0", str(sent), lambda: self.messages.work(sent), sent)

    def _last_post(self, post: Post) -> None:
        with contextlib.suppress(CrochetError):  # its corpus was deleted
            self.clients.posted(post)

    def _at_rest(self) -> bool:
        waits = self.store.rows(
            "SELECT FROM work WHERE state = 'open' UNION ALL SELECT FROM corpora WHERE removed_at IS NOT NULL"
            " UNION ALL SELECT FROM work WHERE state IN ('failed', 'cancelled') AND kind IN ('search', 'remediations')"
            " UNION ALL SELECT FROM work WHERE state = 'failed' AND kind = 'best'"
            " UNION ALL SELECT FROM texts WHERE state = 'failed' AND body <> ALL (%s)",
            [WORDLESS, POISONED],
        )
        return not waits and not self.network.dead

    def _repair(self) -> None:
        """What operators do in the end: raise budgets, end pauses, retry what has failed."""
        for (name,) in self.store.rows("SELECT name FROM corpora WHERE removed_at IS NULL ORDER BY id"):
            self.clients.set_budget(name, None)
            self.clients.set_paused(name, paused=False)
        actions.retry_all(here(), dropped=True)


class _NoMessage:
    """What a worker does that has no message of the pipeline."""

    taken = True
