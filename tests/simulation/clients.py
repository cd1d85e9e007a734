"""Clients and operators of a run: they post, cancel, retry, drop, delete; as people do, they ask again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from crochet_tasks import publish
from crochet_tasks.access import tenancy
from crochet_tasks.db.corpora import DEFAULT_TENANT
from crochet_tasks.db.process import here
from crochet_tasks.errors import CrochetError
from crochet_tasks.intake.admission import Admission, SubmittedText
from crochet_tasks.operate import actions, cancelling
from tests.simulation.bench import CLIENTS
from tests.support.strategies import Limits

if TYPE_CHECKING:
    from tests.simulation.world import World


class Planned(NamedTuple):
    """A corpus of a run, before it is made."""

    name: str
    limits: Limits
    budget: int | None


class Post(NamedTuple):
    """A request of a client."""

    corpus: Planned
    body: str
    key: str
    repeated: bool = False


class Clients:
    """What they may do; each is an activity of a simulated client."""

    def __init__(self, world: World) -> None:
        self._world = world

    def client(self, what: str, step: Callable[[], object], about: Any = None) -> None:
        def asks() -> None:
            try:
                step()
            except CrochetError as error:
                self._world.log(f"{what}: {error.code}")
                if error.code in ("text_started", "text_is_version"):
                    self._world.reached("a text could not be cancelled any more")
                if isinstance(about, Post) and error.code not in ("corpus_unknown",):
                    self._world.posts.insert(0, about._replace(repeated=True))  # as clients do

        self._world.begin(self._world.choices.of(self._world.free(CLIENTS)), what, asks, about)

    def post(self) -> None:
        post = self._world.posts.pop(0)
        self.client(f"posts {post.key}", lambda: self.posted(post), post)

    def posted(self, post: Post) -> None:
        process = here()
        text = SubmittedText(post.key, post.body)
        answer, again = Admission(process).post(DEFAULT_TENANT, post.corpus.name, text, post.key)
        if post.repeated and again:
            self._world.reached("a request was repeated after its answer was lost")
        self._world.acknowledged[str(answer.answer["id"])] = post

    def post_again(self) -> None:
        """The same text in another request: it is accepted once, or again if it has failed or was cancelled."""
        post = self._world.choices.of(list(self._world.acknowledged.values()))
        self._world.reached("a text was posted twice")
        again = post._replace(key=f"{post.key}-{len(self._world.lines)}")
        self.client(f"posts {post.key} again", lambda: self.posted(again), again)

    def cancel(self) -> None:
        name = self._world.choices.of(list(self._world.acknowledged))
        names = sorted({name, self._world.choices.of(list(self._world.acknowledged))})
        self._world.withdrawn.update(names)

        def cancel() -> None:
            cancelling.cancel(here(), names)
            self._world.reached("a text was cancelled")
            if any(
                self._world.live("search.part", number)
                for number in self._numbers(self._world.acknowledged[name].corpus)
            ):
                self._world.reached("a text was cancelled while a search ran")

        self.client(f"cancels {' '.join(names)}", cancel)

    def _numbers(self, corpus: Planned) -> list[int]:
        return [number for number, planned in self._world.ids.items() if planned == corpus]

    def operate(self, how: str) -> None:
        """An operator retries or drops one of what has failed."""
        items = self._world.store.rows(
            "SELECT id::text FROM work WHERE state IN ('failed', 'cancelled') AND kind NOT IN ('ingest', 'context')"
            " UNION ALL SELECT 'text-' || id FROM texts WHERE state IN ('failed', 'cancelled') ORDER BY 1"
        )
        if not items:
            self._world.log("nothing has failed")
            return
        (name,) = self._world.choices.of(items)
        if how == "drop" and name.startswith("text"):
            self._world.withdrawn.add(name)
        elif how == "drop":
            self._world.best.drop(name)

        def operate() -> None:
            (actions.retry if how == "retry" else actions.drop)(here(), [name])
            self._world.reached(f"failed work was {'retried' if how == 'retry' else 'dropped'} by an operator")

        self.client(f"{how} {name}", operate)

    def delete(self) -> None:
        number = self._world.choices.of(sorted(self._world.versions))
        name = self._world.ids[number].name

        def delete() -> None:
            self._world.deleted.add(number)  # from now on it may be
            searches = self._world.live("search.part", number)
            best = self._world.live("best.part", number)
            ordered = [
                self._world.live(each, number) for each in ("ingest.text", "context.version", "remediations.due")
            ]
            tenancy.remove(here(), DEFAULT_TENANT, name, name)
            self._world.reached("a corpus was deleted")
            if searches:
                self._world.reached("a corpus was deleted while a search ran")
            if best:
                self._world.reached("a corpus was deleted while its best were searched for")
            if any(ordered):
                self._world.reached("a corpus was deleted while an ordered stage ran")

        self.client(f"deletes {name}", delete)

    def budget(self) -> None:
        corpus = self._world.ids[self._world.choices.of(sorted(self._world.ids))]
        budget = self._world.choices.of([None, 1, 5, 40])
        self.client(f"gives {corpus.name} a budget of {budget}", lambda: self.set_budget(corpus.name, budget))

    def set_budget(self, name: str, budget: int | None) -> None:
        tenancy.change(here(), DEFAULT_TENANT, name, None, {"budget": budget})

    def pause(self) -> None:
        number = self._world.choices.of(sorted(self._world.ids))
        name, paused = self._world.ids[number].name, bool(self._world.choices.below(2))

        def pause() -> None:
            running = any(self._world.live(task, number) for task in publish.TASKS.values())
            before = self._world.store.rows("SELECT FROM corpora WHERE id = %s AND paused_at IS NOT NULL", number)
            self.set_paused(name, paused=paused)
            if before and not paused:
                self._world.reached("a paused corpus went on")
            if running and paused:
                self._world.reached("a corpus was paused while its work ran")

        self.client(f"{'pauses' if paused else 'resumes'} {name}", pause)

    def set_paused(self, name: str, *, paused: bool) -> None:
        tenancy.change(here(), DEFAULT_TENANT, name, None, {"paused": paused})

    def cancel_all(self) -> None:
        """All open work of a corpus: its texts may be cancelled from now on, and its searches for the best stopped."""
        number = self._world.choices.of(sorted(self._world.ids))
        name = self._world.ids[number].name

        def cancel() -> None:
            self._world.emptied.add(number)
            try:
                done = cancelling.cancel_all(here(), name)
            finally:
                self._world.best.may_be_stopped(number)
            if done.work:
                self._world.reached("all work of a corpus was cancelled")

        self.client(f"cancels all of {name}", cancel)
