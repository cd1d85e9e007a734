"""The requests of benchmarks/api.py: every route that clients use often, with many different arguments."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

import numpy as np

from benchmarks.load import ApiRequest

Ask = Callable[[ApiRequest], tuple[float, Any]]
"""(milliseconds, what is answered)"""

VARIED = 40
"""different arguments of a route, about"""


class Route(NamedTuple):
    """Requests of one kind. `cold`: it is also measured on a fresh server."""

    name: str
    requests: list[ApiRequest]
    reads: bool = True
    cold: bool = False

    def spread(self, number: int) -> list[ApiRequest]:
        """So many requests."""
        return list(itertools.islice(itertools.cycle(self.requests), number))


def request(
    method: str, path: str, body: object = None, *, expected: Sequence[int] = (200,), **headers: str
) -> ApiRequest:
    """A request, with JSON where it has a body."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is None:
        return ApiRequest(method, path, named, None, expected)
    return ApiRequest(method, path, {"Content-Type": "application/json", **named}, json.dumps(body), expected)


def routes(ask: Ask, corpus: str) -> list[Route]:
    """All of them, about what is stored in a corpus."""
    base = f"/v1/corpora/{corpus}"

    def get(path: str, **query: object) -> ApiRequest:
        return request("GET", f"{base}/{path}" + (f"?{urlencode(query)}" if query else ""))

    shape = max(ask(get("shapes"))[1]["shapes"], key=lambda each: each["orthos"])["shape"]
    name = "x".join(map(str, shape))
    some = ask(get("orthos", shape=name, limit=1000))[1]["orthos"]
    best = ask(get("orthos", limit=1000))[1]["orthos"]
    words = sorted({word for ortho in some for word in ortho["words"]})
    words = words[:: max(1, len(words) // VARIED)]
    volume = int(np.prod(np.array(shape) - 1))
    cursors = [ask(get("orthos"))[1]["next_cursor"]]
    while len(cursors) < VARIED // 2:
        cursors.append(ask(get("orthos", cursor=cursors[-1]))[1]["next_cursor"])
    random = np.random.default_rng(1)
    absent = [f"{a:016x}{b:016x}" for a, b in random.integers(0, 1 << 63, (1000, 2)).tolist()]
    present = [ortho["id"] for ortho in [*some, *best]]
    random.shuffle(present)

    def check(number: int, exact: bool) -> list[ApiRequest]:
        """Half of them are stored."""
        ids = [[*absent[: number // 2], *present[begin : begin + number // 2]] for begin in range(0, 1000, 50)]
        return [request("POST", f"{base}/orthos/check", {"ids": each, "exact": exact}) for each in ids]

    def post(number: str, **headers: str) -> ApiRequest:
        """Into a corpus for this, which is put in the place of `written`: in the path, and in what the key is."""
        text = {"title": f"small {number}", "body": f"the seas and the land {number}. the land and the seas."}
        return request("POST", "/v1/corpora/written/texts", text, expected=(202,), **headers)

    return [
        Route("version", [get("version")], cold=True),
        Route("status", [get("status")], cold=True),
        Route("corpora", [request("GET", "/v1/corpora")]),
        Route("one corpus", [request("GET", base)]),
        Route("texts", [get("texts")]),
        Route("post a small text", [post("{n}")], reads=False),
        Route("post one, with a key", [post("{n}", Idempotency_Key="bench-{n}")], reads=False),
        Route(
            "post one again, same key", [post(str(i), Idempotency_Key=f"written-{i}") for i in range(20)], reads=False
        ),
        Route("vocabulary, 100", [get("vocabulary", prefix=word[:1]) for word in words], cold=True),
        Route("phrases after a word", [get("phrases", prefix=word) for word in words]),
        Route("orthos, 100 best", [get("orthos")], cold=True),
        Route("orthos, next pages", [get("orthos", cursor=cursor) for cursor in cursors]),
        Route("orthos, 1000", [get("orthos", limit=1000)]),
        Route("orthos with a word", [get("orthos", contains=word) for word in words], cold=True),
        Route("orthos, shape and volume", [get("orthos", shape=name, min_volume=volume)]),
        Route("one ortho, its sources", [get(f"orthos/{each}") for each in present[:VARIED]], cold=True),
        Route("10 best", [get("orthos/best")]),
        Route("shapes", [get("shapes")]),
        Route("check 100, probable", check(100, exact=False), cold=True),
        Route("check 1000, probable", check(1000, exact=False)),
        Route("check 100, exact", check(100, exact=True)),
        Route("check 1000, exact", check(1000, exact=True), cold=True),
        Route("waiting on a phrase", [get("remediations", phrase=word) for word in words], cold=True),
        Route("work, open", [get("work")]),
        Route("work, done", [get("work", state="done")]),
        Route("get a token", [request("POST", "/v1/tokens", {}, expected=(201,))], reads=False),
        Route("ready?", [request("GET", "/health/ready", expected=(200, 503))]),
    ]
