"""Orthos over HTTP: pages, exports, one by one, checks; each answer from one snapshot."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from api.streaming import StreamAborted
from crochet_tasks.access import keys
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.query.catalog import Catalog
from crochet_tasks.schemas.answers import BestOrthos, OrthoPage
from tests.support import oracle, steps
from tests.support.api import Api, corpus_of
from tests.support.packed import in_order

pytestmark = pytest.mark.integration

URL = "/v1/corpora/genesis"
NDJSON = {"Accept": "application/x-ndjson"}
CURSORS = ("", "A", "AAAA", "x" * 9000, "../..", "é", "'; DROP TABLE texts")


@pytest.fixture
def corpus(api: Api) -> Corpus:
    """With every ortho of the three texts."""
    corpus = corpus_of(api)
    steps.ingest_all(corpus, steps.TEXTS)
    return corpus


def key(ortho: dict[str, Any]) -> oracle.Ortho:
    return tuple(ortho["shape"]), tuple(ortho["words"])


def get(api: Api, path: str, **query: Any) -> Any:
    answer = api.read.get(f"{URL}{path}", query_string=query)
    assert answer.status_code == 200, answer.data
    return answer.get_json()


def test_all_pages_together_are_the_closure(api: Api, corpus: Corpus) -> None:
    """Best first, each once; and the export is the same."""
    seen: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 4}
    for _ in range(100):
        page = get(api, "/orthos", **query)
        seen += page["orthos"]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert Counter(map(key, seen)) == steps.expected(steps.TEXTS)
    assert list(map(key, seen)) == in_order(steps.expected(steps.TEXTS))
    export = api.read.get(f"{URL}/orthos", headers=NDJSON)
    lines = [json.loads(line) for line in export.data.splitlines()]
    assert (export.mimetype, export.headers["X-Crochet-Version"]) == ("application/x-ndjson", "3")
    assert [line["id"] for line in lines] == [ortho["id"] for ortho in seen]
    assert get(api, "/orthos/best", limit=3)["orthos"] == seen[:3]


def test_only_what_is_wanted(api: Api, corpus: Corpus) -> None:
    """Of a shape, with a word, of a volume; and only some fields."""
    every = get(api, "/orthos", limit=1000)["orthos"]
    lines = {each["id"]: set(oracle.lines(tuple(each["shape"]), tuple(each["words"]))) for each in every}
    some = every[len(every) // 2]["id"]
    for query, wanted in (
        ({"shape": "2x3"}, lambda ortho: ortho["shape"] == [2, 3]),
        ({"contains": "j"}, lambda ortho: "j" in ortho["words"]),
        ({"contains": "J", "shape": "2x4"}, lambda ortho: "j" in ortho["words"] and ortho["shape"] == [2, 4]),
        ({"min_volume": 3}, lambda ortho: ortho["volume"] >= 3),
        ({"starts_with": " A b"}, lambda ortho: ortho["words"][:2] == ["a", "b"]),
        ({"starts_with": "a unknown"}, lambda _: False),
        ({"contains": "unknown"}, lambda _: False),
        ({"contains": "b C"}, lambda ortho: any(" b c " in f" {' '.join(line)} " for line in lines[ortho["id"]])),
        ({"shares_line_with": some}, lambda ortho: ortho["id"] != some and lines[ortho["id"]] & lines[some]),
    ):
        found = get(api, "/orthos", limit=1000, **query)["orthos"]
        assert found == list(filter(wanted, every)), query
        export = api.read.get(f"{URL}/orthos", query_string=query, headers=NDJSON).data.splitlines()
        assert [json.loads(line)["id"] for line in export] == [ortho["id"] for ortho in found], query
    assert [set(ortho) for ortho in get(api, "/orthos", fields="words,id", limit=2)["orthos"]] == [{"words", "id"}] * 2


def test_no_line_is_shared_with_an_ortho_that_is_not_there(api: Api, corpus: Corpus) -> None:
    api.problem(api.read.get(f"{URL}/orthos?shares_line_with={'0' * 32}"), "not_found", 404)
    answer = api.read.get(f"{URL}/orthos?shares_line_with={'0' * 32}", headers=NDJSON)
    api.problem(answer, "not_found", 404)


def test_a_page_that_is_short_says_how_far_it_came(api: Api, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crochet_tasks.query.pages.SCANNED_AT_ONCE", 1)
    total = get(api, "/shapes")["total"]
    page = get(api, "/orthos", contains="s", limit=1000)
    assert page["looked"]["of"] == total
    assert 0 <= page["looked"]["orthos"] < total
    assert page["next_cursor"] is not None


def test_orthos_are_written_as_their_models_would_be(api: Api, corpus: Corpus) -> None:
    """To the byte, without making a model of each."""
    steps.ingest_all(corpus, ["it's été Ωmega, été zoë, it's naïve, naïve zoë, \"zoë 日本"])
    for path, model in (
        ("/orthos?limit=1000", OrthoPage),
        ("/orthos?limit=2", OrthoPage),
        ("/orthos?limit=9&fields=words,id", OrthoPage),
        ("/orthos?limit=9&fields=volume,born,shape&contains=zoë", OrthoPage),
        ("/orthos?contains=unknown", OrthoPage),
        ("/orthos/best?limit=5", BestOrthos),
    ):
        written = api.read.get(URL + path).data
        assert model.model_validate_json(written, strict=True).model_dump_json(exclude_unset=True).encode() == written
    assert "zoë".encode() in api.read.get(f"{URL}/orthos?contains=zoë").data


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/orthos?shape=3x2", "invalid_shape"),
        ("/orthos?shape=2", "invalid_shape"),
        ("/orthos?shape=02x2", "invalid_shape"),
        ("/orthos?shape=2x02", "invalid_shape"),
        ("/orthos?shape=2x+2", "invalid_shape"),
        ("/orthos?shape=2x%202", "invalid_shape"),
        ("/orthos?shape=2x2%0A", "invalid_shape"),
        ("/orthos?shape=2x%D9%A2", "invalid_shape"),
        ("/orthos?shape=2X2", "invalid_shape"),
        ("/orthos?limit=1001", "invalid_request"),
        ("/orthos?limit=0", "invalid_request"),
        ("/orthos?min_volume=0", "invalid_request"),
        ("/orthos?starts_with=", "invalid_request"),
        ("/orthos?fields=id,secret", "invalid_request"),
        ("/orthos?shares_line_with=1", "invalid_request"),
        ("/orthos?shapes=2x2", "invalid_request"),
        ("/orthos/best?limit=2000", "invalid_request"),
        ("/orthos/xyz", "invalid_ortho_id"),
        ("/remediations", "invalid_request"),
        ("/vocabulary?limit=-1", "invalid_request"),
        ("/status?x=1", "invalid_request"),
        ("/work?state=lost", "invalid_request"),
    ],
)
def test_questions_that_are_none(api: Api, corpus: Corpus, path: str, code: str) -> None:
    """Nothing unknown is taken, and nothing guessed."""
    api.problem(api.read.get(URL + path), code, 422)


@pytest.mark.parametrize("path", ["/orthos", "/vocabulary", "/phrases", "/texts"])
def test_cursors_that_were_tampered_with(api: Api, corpus: Corpus, path: str) -> None:
    """Cut, changed, made up, or of another question: refused, without details."""
    page = api.read.get(f"{URL}{path}?limit=1")
    cursor, seen = page.get_json()["next_cursor"], {"If-None-Match": page.headers["ETag"]}
    changed = [cursor[:place] + ("A" if cursor[place] != "A" else "B") + cursor[place + 1 :] for place in (0, 5, 9)]
    for bad in (*changed, cursor + "A", cursor[:-1], *CURSORS):
        answer = api.read.get(URL + path, query_string={"limit": 1, "cursor": bad}, headers=seen)
        assert answer.status_code == 422, bad
        assert answer.get_json()["code"] in ("invalid_cursor", "invalid_request")
    other = {"/orthos": "contains", "/vocabulary": "prefix", "/phrases": "prefix", "/texts": "state"}[path]
    value = "current" if path == "/texts" else "a"
    api.problem(api.read.get(URL + path, query_string={"cursor": cursor, other: value}), "invalid_cursor", 422)


def test_an_ortho_comes_with_its_grid_and_the_sentences_of_its_lines(api: Api, corpus: Corpus) -> None:
    """Its grid, and each line with the sentences that hold it."""
    best = get(api, "/orthos/best", limit=1)["orthos"][0]
    whole = get(api, f"/orthos/{best['id']}")
    assert {name: whole[name] for name in best} == best
    assert list(itertools.chain(*whole["grid"])) == best["words"]
    assert len(whole["lines"]) == 6
    for line in whole["lines"]:
        assert line["sources"], line
        for source in line["sources"]:
            assert " ".join(line["words"]) in " ".join(source["words"])
            number = int(source["text"].removeprefix("text-"))
            assert source["words"] == list(oracle.sentences(steps.TEXTS[number - 1])[source["sentence"] - 1])
    api.problem(api.read.get(f"{URL}/orthos/{'0' * 32}"), "not_found", 404)


def test_checks_say_why_something_is_no_stored_ortho(api: Api, corpus: Corpus) -> None:
    """By id or as boxes, mirrored or not; why something is none; answers that are exact say so."""
    best = get(api, "/orthos/best", limit=1)["orthos"][0]
    ids = api.read.post(f"{URL}/orthos/check", json={"ids": [best["id"], "0" * 32, "x"]}).get_json()
    assert [(each["stored"], each["reason"]) for each in ids["results"]] == [
        (True, None),
        (False, "not_found"),
        (False, "malformed_id"),
    ]
    grids = [[["a", "b"], ["d", "e"]], [["a", "d"], ["b", "e"]], [["a", "b"], ["b", "a"]], [["a"], ["b", "c"]]]
    answer = api.read.post(f"{URL}/orthos/check", json={"grids": grids, "exact": False}).get_json()
    assert [each["stored"] for each in answer["results"]] == [True, True, False, False]
    assert (answer["exact"], answer["degraded"], answer["version"]) == (False, False, 3)
    assert (answer["false_positives"], ids["false_positives"]) == (0.0, 0.0)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ids": [], "exact": True},
        {"ids": ["0" * 32], "grids": [[["a"]]]},
        {"ids": ["0"] * 1001},
        {"ids": [1]},
        {"grids": ["a"]},
        {"ids": ["0" * 32], "exact": "yes"},
        {"ids": ["0" * 32], "more": 1},
    ],
)
def test_checks_that_are_none(api: Api, corpus: Corpus, body: dict[str, Any]) -> None:
    """At most a thousand, of one kind."""
    api.problem(api.read.post(f"{URL}/orthos/check", json=body), "invalid_request", 422)


def test_who_has_seen_it_is_told_so(api: Api, corpus: Corpus) -> None:
    """Whatever is read of a corpus names its version; 304 while nothing has changed; another text changes the tag."""
    best = get(api, "/orthos/best")["orthos"][0]["id"]
    paths = ["/orthos?limit=2", "/orthos/best", "/shapes", "/vocabulary", "/phrases", "/version", "/texts", "/status"]
    paths += [f"/orthos/{best}", "/texts/text-1", "/remediations?phrase=a", "/work", "/estimate"]
    rules = [rule for rule in api.app.url_map.iter_rules() if rule.rule.startswith("/v1/corpora/<corpus>/")]
    read = {rule.rule for rule in rules if "GET" in (rule.methods or ())}
    assert len(paths) == len({rule for rule in read if "<corpus>/best" not in rule})  # there is no job to be read here
    tags = {}
    for path in paths:
        seen = api.read.get(URL + path)
        tags[path] = seen.headers["ETag"]
        assert seen.headers["X-Crochet-Version"] == "3"
        again = api.read.get(URL + path, headers={"If-None-Match": f'"x", {tags[path]}'})
        assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", tags[path]), path
    steps.ingest_all(corpus, ["the sea and the land"])
    for path in set(paths) - {"/shapes", "/texts/text-1"}:  # there is no new ortho, and that text is as it was
        assert api.read.get(URL + path, headers={"If-None-Match": tags[path]}).status_code == 200, path


def test_an_answer_is_one_snapshot(api: Api, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that is made while an answer is being read is in no part of it."""
    from crochet_tasks.query.catalog import Catalog

    shapes = Catalog.shapes

    def meanwhile(*args: Any) -> Any:
        monkeypatch.setattr(Catalog, "shapes", shapes)
        steps.ingest_all(corpus, ["q a, w b, q w, q b"])
        return shapes(*args)

    before = get(api, "/shapes")
    monkeypatch.setattr(Catalog, "shapes", meanwhile)
    assert get(api, "/shapes") == before
    assert get(api, "/shapes")["version"] == 4


def test_what_is_accepted(api: Api, corpus: Corpus) -> None:
    """JSON without a wish, NDJSON where it is preferred, nothing else; an export is whole."""
    for accept, kind in (
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("application/json;q=0.5, application/x-ndjson", "application/x-ndjson"),
    ):
        answer = api.read.get(f"{URL}/orthos", headers={"Accept": accept})
        assert (answer.mimetype, "Accept" in answer.headers["Vary"]) == (kind, True)
    api.problem(api.read.get(f"{URL}/orthos", headers={"Accept": "text/html"}), "not_acceptable", 406)
    for query in ("limit=3", "cursor=AAAA", "fields=id"):
        api.problem(api.read.get(f"{URL}/orthos?{query}", headers=NDJSON), "invalid_request", 422)


def test_few_exports_at_the_same_time(api: Api, corpus: Corpus) -> None:
    """One of a tenant, two in all; one that is not read to its end frees its slot and its connection."""
    api.stranger.post("/v1/corpora", json={"name": "genesis"})
    for _ in range(3):
        running = [each.get(f"{URL}/orthos", headers=NDJSON, buffered=False) for each in (api.read, api.stranger)]
        assert [each.status_code for each in running] == [200, 200]
        api.problem(api.read.get(f"{URL}/orthos", headers=NDJSON), "too_busy", 503)
        next(running[0].iter_encoded())
        for each in running:
            each.close()
    assert api.process.database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_an_export_ends_with_its_key(api: Api, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cut, so that no client takes a part for the whole; its slot is free again."""
    monkeypatch.setattr("api.streaming.CHECK_SECONDS", 0.0)
    export = Catalog.export

    def line_by_line(*given: Any, **more: Any) -> Iterator[bytes]:
        yield from b"".join(export(*given, **more)).splitlines(keepends=True)

    monkeypatch.setattr(Catalog, "export", line_by_line)
    answer = api.read.get(f"{URL}/orthos", headers=NDJSON, buffered=False)
    lines = answer.iter_encoded()
    assert json.loads(next(lines))["shape"]
    keys.revoke(api.process.database, api.keys["read"])
    with pytest.raises(StreamAborted):
        list(lines)
    answer.close()
    assert api.write.get(f"{URL}/orthos", headers=NDJSON).data.count(b"\n") == sum(steps.expected(steps.TEXTS).values())


def test_words_phrases_and_what_waits(api: Api, corpus: Corpus) -> None:
    """The context as the texts made it."""
    words = get(api, "/vocabulary", limit=1000)["words"]
    expected = {word for body in steps.TEXTS for sentence in oracle.sentences(body) for word in sentence}
    assert [each["word"] for each in words] == sorted(expected)
    found = get(api, "/phrases", prefix="a b")
    assert (found["prefix"], [each["words"] for each in found["phrases"]]) == (["a", "b"], [["a", "b", "c"]])
    api.problem(api.read.get(f"{URL}/phrases?prefix=no+such"), "phrase_unknown", 404)
    api.problem(api.read.get(f"{URL}/remediations?phrase=no+such"), "phrase_unknown", 404)
    waiting = get(api, "/remediations", phrase="c f")
    assert sum(shape["orthos"] for shape in waiting["shapes"]) > 0
    assert waiting["batches"][0]["searched"] <= 3


def test_boxes_of_too_many_cells_are_refused(api: Api, corpus: Corpus) -> None:
    """Together: a thousand of 64 cells are not too many."""
    box = [[f"w{row * 8 + place}" for place in range(8)] for row in range(8)]
    answer = api.read.post(f"{URL}/orthos/check", json={"grids": [box] * 1000})
    assert {each["reason"] for each in answer.get_json()["results"]} == {"line"}
    large = [[f"w{row * 32 + place}" for place in range(32)] for row in range(32)]
    api.problem(api.read.post(f"{URL}/orthos/check", json={"grids": [large] * 65}), "invalid_request", 422)
