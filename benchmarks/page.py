"""How long one waits for pages of a corpus of 10 million orthos: `make bench-page`. Writes benchmarks/results/page.md.

`crochet api` as in production, over HTTP with the session of a browser: milliseconds to the last byte of the HTML, of a
server that was just started, and of one that has answered before. With Chromium, where it is, also until it has drawn.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, OpenerDirector, build_opener

from benchmarks import texts
from benchmarks.api import CORPUS, GOAL_MS, Bench, bench
from benchmarks.closure import machine, written
from benchmarks.load import ApiRequest
from benchmarks.scale import LIMITS, bible, fill
from crochet_tasks.engine.geometry import Limits
from tests.support.browser import launched
from tests.support.server import Missing

ORTHOS = 10_000_000
STARTS = 3
"""of the server, for each page"""
SECONDS = 1.0
PAINTED = """new Promise((done) => new PerformanceObserver((seen) => {
  for (const each of seen.getEntriesByName("first-contentful-paint")) done(each.startTime);
}).observe({type: "paint", buffered: true}))"""


class Browser:
    """What a browser has: a session in a cookie."""

    def __init__(self, api: Bench) -> None:
        self._root = f"http://127.0.0.1:{api.port}"
        self._jar = CookieJar()
        self._opener: OpenerDirector = build_opener(HTTPCookieProcessor(self._jar))
        token = _found(r'name="csrf_token" value="([^"]+)"', self.get("/log-in")[1])
        sent = urlencode({"key": api.key, "csrf_token": token}).encode()
        self._opener.open(f"{self._root}/log-in", sent, timeout=60).close()

    @property
    def cookie(self) -> str:
        return "; ".join(f"{each.name}={each.value}" for each in self._jar)

    def get(self, path: str) -> tuple[float, str]:
        """Milliseconds, and the page."""
        began = time.perf_counter()
        with self._opener.open(f"{self._root}{path}", timeout=60) as answer:
            page = answer.read().decode()
        return 1000 * (time.perf_counter() - began), page


def _found(pattern: str, page: str) -> str:
    match = re.search(pattern, page)
    if match is None:
        raise RuntimeError(f"there is no {pattern} in {page[:500]}")
    return match[1].replace("&amp;", "&")


def pages(browser: Browser) -> dict[str, str]:
    """What is measured, by name; the first one is the first grid."""
    gallery = f"/corpora/{CORPUS}/orthos"
    first = browser.get(gallery)[1]
    deep = _found(r'rel="next" href="([^"]+)"', first)
    for _ in range(50):
        deep = _found(r'rel="next" href="([^"]+)"', browser.get(deep)[1])
    shape = max(re.findall(r"<option value=\"(\S+)\">\S+ \(([^)]+)\)", first), key=lambda each: _number(each[1]))[0]
    word = _found(r'<td data-cell="0"><bdi>([^<]+)', first)
    return {
        "gallery": gallery,
        "gallery, 50 pages further": deep,
        "gallery, back from there": _found(r'rel="prev" href="([^"]+)"', browser.get(deep)[1]),
        "gallery, the commonest shape": f"{gallery}?shape={shape}",
        "gallery, with a word": f"{gallery}?contains={word}",
        "corpus": f"/corpora/{CORPUS}",
        "ortho": _found(r'class="open" href="([^"]+)"', first),
        "word": f"/corpora/{CORPUS}/phrase?words={word}",
    }


def _number(grouped: str) -> int:
    return int(re.sub(r"\D", "", grouped))


def report(orthos: int) -> Iterator[str]:
    yield from machine("The page")
    verses = texts.genesis()
    name, body = ("Genesis", "\n\n".join(verses)) if verses else ("a made-up text", "\n\n".join(texts.zipf(40_000)))
    yield from _of(name, body, Limits()._asdict(), orthos)
    whole = bible()
    if whole is not None:
        yield from _of("The King James Bible", whole, LIMITS, orthos)


def _of(name: str, body: str, limits: dict[str, int], orthos: int) -> Iterator[str]:
    allowed = ", ".join(f"{limit} {value}" for limit, value in limits.items())
    yield f"## {name}, {len(body.split()):,} words, {allowed}, budget {orthos:,} orthos"
    yield ""
    with (
        tempfile.TemporaryDirectory() as folder,
        bench(Path(folder), lambda process: fill(process, body, orthos, limits)) as (api, about),
    ):
        yield about.partition("\n")[0]
        yield ""
        api.restart()
        browser = Browser(api)
        every = pages(browser)
        yield f"| page | first of a fresh server, ms (median of {STARTS}) | then, p50 | p99 | kB |"
        yield "|---|---|---|---|---|"
        slowest = 0.0
        for place, (what, path) in enumerate(every.items()):
            cold = []
            for _ in range(STARTS):
                api.restart()
                cold.append(browser.get(path)[0])
            size = len(browser.get(path)[1].encode())
            asked = [ApiRequest("GET", path, {"Cookie": browser.cookie})]
            api.load(asked, 4, SECONDS / 2)  # all processes have read what they need
            load, _ = api.load(asked, 1, SECONDS)
            if load.errors:
                raise RuntimeError(f"{path}: {load.errors}")
            slowest = max(slowest, *cold, load.percentile(0.99)) if place == 0 else slowest
            yield (
                f"| {what} | {statistics.median(cold):.0f} | {load.percentile(0.5):.1f} | {load.percentile(0.99):.0f} "
                f"| {size / 1000:.0f} |"
            )
        yield ""
        yield f"- the first grid, slowest: **{slowest:.0f} ms** (goal: less than {GOAL_MS})"
        with contextlib.suppress(Missing):
            cold_ms, warm_ms = _painted(api, browser, every["gallery"])
            yield f"- until Chromium has drawn it: {cold_ms:.0f} ms of a fresh server, then {warm_ms:.0f} ms"
        yield ""


def _painted(api: Bench, browser: Browser, path: str) -> tuple[float, float]:
    """Milliseconds until the first contents are drawn: of a fresh server, and the median of those that follow."""
    with launched() as chromium:
        name, _, value = browser.cookie.partition("=")
        context = chromium.new_context(base_url=f"http://127.0.0.1:{api.port}")
        context.add_cookies([{"name": name, "value": value, "url": f"http://127.0.0.1:{api.port}"}])
        page = context.new_page()
        page.goto("/log-in")  # the browser itself is warm
        api.restart()
        taken = []
        for _ in range(1 + STARTS):
            page.goto(path)
            taken.append(float(page.evaluate(PAINTED)))
        context.close()
    return taken[0], statistics.median(taken[1:])


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--orthos", type=int, default=ORTHOS, help="with fewer it is tried, and nothing is written")
    chosen = options.parse_args().orthos
    if chosen < ORTHOS:
        for line in report(chosen):
            print(line, flush=True)
    else:
        written("page", lambda: report(chosen))
