"""Many texts in one request: each has an answer of its own, whatever is wrong with another one."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

import pytest
from werkzeug.datastructures import MultiDict
from werkzeug.test import TestResponse

from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.settings import Settings
from tests.support import steps
from tests.support.api import SETTINGS, Api, corpus_of, made

pytestmark = pytest.mark.integration

URL = "/v1/corpora/genesis/texts/batch"


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return made.getvalue()


def sent(api: Api, *files: tuple[str, bytes], key: str | None = None, **fields: str) -> TestResponse:
    """The files of a form, by name and content."""
    data: MultiDict[str, Any] = MultiDict([("files", (io.BytesIO(content), name)) for name, content in files])
    for name, value in fields.items():
        data.add(name, value)
    headers = {} if key is None else {"Idempotency-Key": key}
    return api.write.post(URL, data=data, content_type="multipart/form-data", headers=headers)


def of_each(answer: TestResponse) -> list[tuple[str, int, str | None]]:
    """Title, status and code of each text."""
    assert answer.status_code == 200, answer.data
    return [(text["title"], text["status"], (text["error"] or {}).get("code")) for text in answer.get_json()["texts"]]


def titles(process: Process) -> list[str]:
    return [str(title) for (title,) in steps.sql(process, "SELECT title FROM texts ORDER BY seq")]


def test_each_text_has_its_own_answer(api: Api, corpus: Corpus) -> None:
    """Good ones are accepted in order, also behind bad ones; one that is there already is answered as it is."""
    bodies = ["the sea", "1 2 3", "the land", "the sea"]
    texts = [{"title": body[:5], "body": body} for body in bodies] + [{"title": "nul", "body": "a\0b"}]
    answer = api.write.post(URL, json={"texts": texts})
    assert of_each(answer) == [
        ("the s", 202, None),
        ("1 2 3", 422, "text_without_words"),
        ("the l", 202, None),
        ("the s", 200, None),
        ("nul", 422, "text_has_nul"),
    ]
    assert titles(api.process) == ["the s", "the l"]


def test_a_batch_may_be_sent_again(api: Api, corpus: Corpus) -> None:
    """With a key for all of it, or one for a text; a text that was refused uses up no key."""
    texts = [{"title": "a", "body": "the sea"}, {"title": "b", "body": "7"}]
    texts += [{"title": "c", "body": "the land", "idempotency_key": "mine"}]
    headers = {"Idempotency-Key": "again"}
    answers = [api.write.post(URL, json={"texts": texts}, headers=headers).get_json()["texts"] for _ in range(2)]
    assert [[text["replayed"] for text in answer] for answer in answers] == [[False] * 3, [True, False, True]]
    assert [answers[0][at]["text"] for at in (0, 2)] == [answers[1][at]["text"] for at in (0, 2)]
    texts[1]["body"], texts[2]["body"] = "seven seas", "another land"
    again = api.write.post(URL, json={"texts": texts}, headers=headers)
    assert of_each(again) == [("a", 202, None), ("b", 202, None), ("c", 422, "idempotency_key_reused")]
    assert titles(api.process) == ["a", "c", "b"]


def test_files_and_zip_files_of_a_form(api: Api, corpus: Corpus) -> None:
    """A file is a text called as it is; a zip file is the files in it, without its folders and what a Mac adds."""
    packed = zipped(("part/", b""), ("part/two.txt", b"the land"), ("__MACOSX/part/._two.txt", b"\0"), ("3.txt", b"3"))
    answer = sent(
        api, ("one.txt", b"\xef\xbb\xbfthe sea"), ("all.zip", packed), ("four.txt", b"th\xe9"), key="k", files="a"
    )
    assert of_each(answer) == [
        ("one.txt", 202, None),
        ("part/two.txt", 202, None),
        ("3.txt", 422, "text_without_words"),
        ("four.txt", 422, "text_not_utf8"),
        ("untitled", 202, None),
    ]
    again = sent(api, ("one.txt", b"the sea"), ("all.zip", packed), key="k").get_json()["texts"]
    assert [text["replayed"] for text in again] == [True, True, False]
    assert titles(api.process) == ["one.txt", "part/two.txt", "untitled"]


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "a\\..\\b\r\n", "\u202etxt.exe", "x" * 500, "a\x7fb"]
)
def test_odd_names_are_titles_and_never_paths(api: Api, corpus: Corpus, name: str) -> None:
    """Control characters are spaces there, and of a long name the end counts."""
    (one,) = of_each(sent(api, ("all.zip", zipped((name, b"the sea")))))
    (title,) = titles(api.process)
    assert one == (title, 202, None)
    assert title == name.replace("\r\n", "").replace("\x7f", " ")[-200:]


def damaged(content: bytes) -> bytes:
    """With another byte in the packed text: its checksum differs."""
    at = content.index(b"the sea")
    return content[:at] + b"T" + content[at + 1 :]


def encrypted(content: bytes) -> bytes:
    at = content.index(b"PK\x01\x02") + 8
    return content[:at] + struct.pack("<H", 1) + content[at + 2 :]


STORED = zipped(("a.txt", b"the sea"), method=zipfile.ZIP_STORED)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(STORED[:-1], id="cut off"),
        pytest.param(b"PK\x03\x04", id="no zip"),
        pytest.param(damaged(STORED), id="damaged"),
        pytest.param(encrypted(STORED), id="encrypted"),
        pytest.param(zipped(("a.txt", b"the sea"), method=zipfile.ZIP_LZMA), id="lzma"),
        pytest.param(zipped(("a.txt", b"a " * 8_000_000)), id="bomb"),
        pytest.param(zipped(*[(f"{number}.txt", b"the sea") for number in range(101)]), id="many files"),
        pytest.param(zipped(*[(f"{number}.txt", b"") for number in range(300)]), id="very many files"),
    ],
)
def test_a_zip_file_that_is_refused_stops_no_others(api: Api, corpus: Corpus, content: bytes) -> None:
    answer = sent(api, ("bad.zip", content), ("one.txt", b"the land"))
    assert [(status, code) for _, status, code in of_each(answer)] == [(422, "zip_refused"), (202, None)]
    assert titles(api.process) == ["one.txt"]


def test_zip_files_unpack_to_no_more_than_a_request_may_hold(process: Process) -> None:
    """In total; and a text of them is no larger than any other."""
    small = made(process, Settings(**SETTINGS, max_text_bytes=1000))
    corpus_of(small)
    room = small.app.config["MAX_CONTENT_LENGTH"]
    answer = sent(small, ("all.zip", zipped(("a.txt", b"the sea " * 126), ("b.txt", b"the land"))))
    assert of_each(answer) == [("a.txt", 413, "text_too_large"), ("b.txt", 202, None)]
    parts = [(f"{number}.txt", b"the sea " * (room // 80)) for number in range(11)]
    assert of_each(sent(small, ("more.zip", zipped(*parts)))) == [("more.zip", 422, "zip_refused")]
    halves = [(name, zipped(*parts[:6])) for name in ("1.zip", "2.zip")]
    answers = of_each(sent(small, *halves))
    assert (len(answers), answers[-1]) == (7, ("2.zip", 422, "zip_refused"))


def test_what_is_no_batch_is_refused_as_a_whole(api: Api, corpus: Corpus) -> None:
    """Before a text of it is accepted."""
    one = {"title": "a", "body": "the sea"}
    for texts in ([], [one] * 101, [one, {"body": 7}], [one, {"title": "\n", "body": "the sea"}]):
        api.problem(api.write.post(URL, json={"texts": texts}), "invalid_request", 422)
    fault = api.problem(api.write.post(URL, json={"texts": [one, {"title": "b"}]}), "invalid_request", 422)
    assert fault["errors"][0]["where"] == "/texts/1/body"
    api.problem(sent(api), "invalid_request", 422)
    api.problem(sent(api, ("a.txt", b"the sea"), title="a"), "invalid_request", 422)
    api.problem(sent(api, *[(f"{number}.txt", b"the sea") for number in range(101)]), "invalid_request", 422)
    for packed in (zipped(*[(f"{number}.txt", b"the sea") for number in range(20)]), zipped(("folder/", b""))):
        api.problem(sent(api, *[(f"{number}.zip", packed) for number in range(101)]), "invalid_request", 422)
    api.problem(sent(api, ("1.zip", packed)), "invalid_request", 422)
    api.problem(api.write.post(URL, data=b"the sea", content_type="text/plain"), "wrong_content_type", 415)
    api.problem(api.read.post(URL, json={"texts": [one]}), "forbidden", 403)
    api.problem(api.write.post("/v1/corpora/none/texts/batch", json={"texts": [{"body": "7"}]}), "corpus_unknown", 404)
    assert titles(api.process) == []


def test_where_there_is_no_more_room(process: Process) -> None:
    """Those that still found room are accepted, and the others say when to send them again."""
    small = made(process)
    process.settings = Settings(max_waiting_texts=2)
    corpus_of(small)
    texts = [{"title": str(number), "body": f"the sea {'a' * number} b"} for number in range(4)]
    answer = small.write.post(URL, json={"texts": texts})
    assert [each[1:] for each in of_each(answer)] == [(202, None)] * 2 + [(503, "too_busy")] * 2
