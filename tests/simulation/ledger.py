"""What a campaign must have reached at least once: a fault that never happened proves nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

STATES = (
    # messages
    "a message was delivered again while its first worker lived",
    "a message of work that was done came once more",
    "a message was overtaken by a later one",
    "a message was lost",
    "all messages were lost",
    "a trigger was ignored",
    "a search was ignored",
    "a result was ignored",
    "a trigger out of turn was parked",
    # publishing
    "the broker refused a message",
    "the broker took a message and its confirmation was lost",
    "two relays published the same work",
    "work was published again while a worker had it",
    "a stale lease's late commit was refused",
    "no more searches were published than may be",
    # deaths and errors
    "a worker died in a transaction",
    "a worker died before its commit",
    "a worker died after its commit, before it acknowledged",
    "a worker died before it published",
    "a worker died after it published",
    "a worker died with all done, before it acknowledged",
    "a worker died while it waited for a lock",
    "a relay died between stamp and message",
    "a relay died while it published",
    "a client died before it had its answer",
    "a transaction was rolled back",
    "a commit was done and reported as failed",
    "a task was retried in place",
    "work was left to a later retry",
    "work used up its attempts",
    "a message's deliveries were used up",
    "a dead letter was recorded",
    "a dead letter of settled work was ignored",
    "a relay died with a dead letter",
    "failed work was retried by an operator",
    "failed work was dropped by an operator",
    # locks and the clock
    "a statement waited for a lock",
    "a wait for a lock timed out",
    "the clock jumped beyond the leases",
    "the clock went back",
    # texts
    "a text was posted twice",
    "a request was repeated after its answer was lost",
    "a text failed between its parts",
    "a failed text was accepted again",
    "a text was cancelled",
    "a text could not be cancelled any more",
    "a text was cancelled while a search ran",
    "a text was ingested by several workers",
    # versions, windows, searches
    "a version came between search and store",
    "a version came while a search ran",
    "a window had several versions",
    "a window was opened while searches were open",
    "a window was searched outward from due phrases",
    "a later window was enumerated",
    "a left-over search was continued",
    "two searches stored at the same time",
    "searches were held by a spent budget",
    "held searches were released",
    "batches were merged",
    # the best orthos
    "the best orthos were asked for",
    "the best orthos were proven",
    "a search for the best was cut into parts",
    "a part of a search for the best left the rest over",
    "two parts of a search for the best ran at the same time",
    "a search for the best stored faces",
    "a message of a search for the best was ignored",
    "a search for the best was stopped",
    "a search for the best was stopped while it ran",
    "a search for the best was asked for again after it was stopped",
    "a version came while the best were searched for",
    "a corpus was deleted while its best were searched for",
    # corpora
    "a corpus was deleted",
    "a corpus was deleted while a search ran",
    "a corpus was deleted while an ordered stage ran",
    "a deletion waited for a stage and gave up",
    "a result came for a deleted corpus",
    "a corpus was paused while its work ran",
    "a paused corpus went on",
    "all work of a corpus was cancelled",
)

STRUCK = {
    ("worker", "statement", "killed", False): "a worker died in a transaction",
    ("worker", "statement", "killed", True): "a worker died in a transaction",
    ("worker", "commit", "killed", False): "a worker died before its commit",
    ("worker", "commit", "killed", True): "a worker died after its commit, before it acknowledged",
    ("worker", "publish", "killed", False): "a worker died before it published",
    ("worker", "publish", "killed", True): "a worker died after it published",
    ("worker", "ack", "killed", False): "a worker died with all done, before it acknowledged",
    ("relay", "publish", "killed", False): "a relay died between stamp and message",
    ("relay", "publish", "killed", True): "a relay died while it published",
    ("relay", "ack", "killed", False): "a relay died with a dead letter",
    ("any", "statement", "error", False): "a transaction was rolled back",
    ("any", "statement", "error", True): "a transaction was rolled back",
    ("any", "commit", "error", False): "a transaction was rolled back",
    ("any", "commit", "error", True): "a commit was done and reported as failed",
    ("any", "publish", "error", False): "the broker refused a message",
    ("any", "publish", "error", True): "the broker took a message and its confirmation was lost",
}
"""the state that a fault reaches: (whom, at which point, what, whether after it)"""


class Ledger:
    """How often each state was reached, and in how many runs."""

    def __init__(self) -> None:
        self.times: Counter[str] = Counter()
        self.runs: Counter[str] = Counter()
        self._this_run: set[str] = set()

    def reached(self, state: str) -> None:
        assert state in STATES, f"{state!r} is not in the ledger"
        self.times[state] += 1
        self._this_run.add(state)

    def end_run(self) -> None:
        self.runs.update(self._this_run)
        self._this_run.clear()

    def add(self, times: dict[str, int], runs: dict[str, int]) -> None:
        """Add the numbers of another process' campaign."""
        self.times.update(times)
        self.runs.update(runs)

    def never(self) -> list[str]:
        return [state for state in STATES if not self.times[state]]

    def lines(self) -> Iterable[str]:
        for state in STATES:
            yield f"{self.times[state]:>9} times in {self.runs[state]:>7} runs  {state}"
