"""The API's HTTP server, as processes with a small application: what becomes of slow, wrong and cut-off clients."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from api.asgi import THREADS
from crochet_tasks.services.http_server import WORKERS
from tests.support.paths import ROOT
from tests.support.server import HOST, take_port
from tests.support.small_server import HUGE, LARGEST, READY
from tests.support.waiting import SECONDS, eventually

pytestmark = pytest.mark.integration

KEY = "Authorization: Bearer a-key"
FILES = 512
SLOW = 2 * WORKERS * THREADS
"""clients: more than there are threads"""


class Running(NamedTuple):
    process: subprocess.Popen[str]
    port: int
    folder: Path
    opened: contextlib.ExitStack

    def client(self, sent: bytes) -> socket.socket:
        """A connection on which this was sent."""
        client = self.opened.enter_context(socket.create_connection((HOST, self.port), SECONDS))
        client.sendall(sent)
        return client

    def answers(self) -> bool:
        """Whether a new client is answered; not where its connection ends before."""
        with (
            contextlib.suppress(OSError, AssertionError),
            socket.create_connection((HOST, self.port), SECONDS) as client,
        ):
            client.sendall(post(b"x"))
            return answer(client)[1] == digest(b"x")
        return False

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with started(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def running(shared: Running) -> Iterator[Running]:
    """A server that other tests use as well; connections of this one end with it."""
    with contextlib.ExitStack() as opened:
        yield shared._replace(opened=opened)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Running]:
    """A server that may be killed."""
    with started(tmp_path) as server:
        yield server


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Running]:
    """A server whose processes may open few files; it waits for heads for longer than this test does."""
    with started(tmp_path, "sh", "-c", f'ulimit -n {FILES} && exec "$@" {int(10 * SECONDS)}', "sh") as server:
        yield server


@contextlib.contextmanager
def started(folder: Path, *program: str) -> Iterator[Running]:
    port = take_port()
    command = [*program, sys.executable, "-m", "tests.support.small_server", str(port), str(folder)]
    with (
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as process,
        contextlib.ExitStack() as opened,
    ):
        assert process.stdout is not None
        assert process.stdout.readline().strip() == READY
        eventually(lambda: len(psutil.Process(process.pid).children()) == WORKERS)
        try:
            yield Running(process, port, folder, opened)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def post(body: bytes, *headers: str, length: int | None = None) -> bytes:
    announced = len(body) if length is None else length
    named = "".join(f"{each}\r\n" for each in (KEY, *headers, f"Content-Length: {announced}"))
    return f"POST /digest HTTP/1.1\r\nHost: x\r\n{named}\r\n".encode() + body


CHUNKED = f"POST /digest HTTP/1.1\r\nHost: x\r\n{KEY}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


def answer(client: socket.socket) -> tuple[int, bytes]:
    """Status and body of one answer."""
    with client.makefile("rb", buffering=0) as received:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = received.read(1)
            assert byte, head
            head += byte
        [length] = re.findall(rb"(?i)content-length: (\d+)", head)
        body = b""
        while len(body) < int(length):
            part = received.read(int(length) - len(body))
            assert part, body
            body += part
        return int(head[9:12]), body


def read_all(client: socket.socket) -> bytes:
    """Read until the connection ends."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(1 << 16):
            received += part
    return received


def test_what_is_sent_is_what_arrives(running: Running) -> None:
    """Small and large, whole and in chunks, one behind another, after `100 Continue`: on one connection."""
    small, large = b"small", os.urandom(LARGEST)
    client = running.client(post(small) + post(large) + CHUNKED + b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: x\r\n\r\n")
    assert [answer(client) for _ in range(3)] == [(200, digest(each)) for each in (small, large, b"abcde")]
    client.sendall(CHUNKED + b"%x\r\n" % len(large) + large + b"\r\n0\r\n\r\n" + post(small))
    assert [answer(client) for _ in range(2)] == [(200, digest(each)) for each in (large, small)]
    client.sendall(post(b"", "Expect: 100-continue", length=len(small)))
    assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.sendall(small)
    assert answer(client) == (200, digest(small))
    for byte in CHUNKED + b"1\r\nx\r\n0\r\n\r\n":
        client.sendall(bytes([byte]))
    assert answer(client) == (200, digest(b"x"))


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        pytest.param(post(b"", length=LARGEST + 1), {b"413"}, id="too large"),
        pytest.param(post(b"x", "Content-Length: 2"), {b"400"}, id="two lengths"),
        pytest.param(CHUNKED + b"-1\r\n", {b"400"}, id="negative chunk"),
        pytest.param(CHUNKED + b"1 \n", {b"400"}, id="chunk with blank"),
        pytest.param(CHUNKED + b"x" * 10_000, {b"400"}, id="chunk without size"),
        pytest.param(CHUNKED + b"1\r\nab\r\n0\r\n\r\n", {b"400"}, id="chunk too long"),
        pytest.param(CHUNKED + b"0\r\n" + b"x: y\r\n" * 50_000, {b"400"}, id="many trailers"),
        pytest.param(b"GET /digest HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 500_000, {b"431"}, id="long header"),
        pytest.param(b"GET /digest HTTP/1.1\r\nHost : x\r\n\r\n", {b"400"}, id="blank in name"),
    ],
)
def test_a_wrong_request_ends_its_connection(running: Running, sent: bytes, statuses: set[bytes]) -> None:
    """What comes behind one is never taken for another request. The refusal may be lost with the connection."""
    clients = [running.client(b"") for _ in range(SLOW)]  # whether one is ended must not depend on chance
    for client in clients:
        with contextlib.suppress(ConnectionError):
            client.sendall(sent + post(b"smuggled"))
    for client in clients:
        received = read_all(client)
        assert digest(b"smuggled") not in received
        assert set(re.findall(rb"HTTP/1.1 (\d+)", received)) <= statuses
    assert running.answers()


def test_two_framings_are_read_as_one(running: Running) -> None:
    """RFC 9112, 6.3: chunks win over a length; the same length twice is one."""
    client = running.client(CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n") + b"1\r\nx\r\n0\r\n\r\n")
    assert answer(client) in ((200, digest(b"x")), (400, b"malformed_request"))
    assert answer(running.client(post(b"x", "Content-Length: 1"))) == (200, digest(b"x"))


def test_slow_requests_hold_no_thread(running: Running) -> None:
    """More than there are threads: others are answered meanwhile, and so are they in the end."""
    slow = [running.client(post(b"12", length=3)) for _ in range(SLOW)]
    heads = [running.client(b"GET /digest HT") for _ in range(SLOW)]
    assert running.answers()
    for client in slow:
        client.sendall(b"3")
    assert {answer(client) for client in slow} == {(200, digest(b"123"))}
    assert {read_all(client) for client in heads} == {b""}


def test_the_oldest_idle_connections_give_way(limited: Running) -> None:
    """More half heads than the process may have connections, and others are answered."""
    for _ in range(WORKERS * FILES):
        limited.client(b"GET /digest HT")
    eventually(limited.answers)
    assert limited.process.poll() is None


def test_slowly_taken_answers_hold_no_thread(running: Running) -> None:
    clients = [running.client(get("/huge")) for _ in range(SLOW)]
    assert running.answers()
    assert len(answer(clients[-1])[1]) == HUGE


def test_a_stream_that_breaks_off_looks_incomplete(running: Running) -> None:
    with contextlib.closing(http.client.HTTPConnection(HOST, running.port, timeout=SECONDS)) as connection:
        connection.request("GET", "/broken")
        with pytest.raises(http.client.HTTPException):
            connection.getresponse().read()


def test_a_process_that_dies_is_replaced(own: Running) -> None:
    [killed, other] = own.workers()
    killed.kill()
    killed.wait()
    eventually(lambda: len(own.workers()) == WORKERS and killed not in own.workers())
    assert other in own.workers()
    assert own.answers()


def test_nothing_listens_when_the_parent_was_killed(own: Running) -> None:
    workers = own.workers()
    own.process.kill()
    psutil.wait_procs(workers, SECONDS)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, own.port), SECONDS)


def test_requests_in_progress_are_finished_at_the_end(own: Running) -> None:
    """SIGTERM: no new connections, silent ones end, and what was asked is answered."""
    silent, asked = own.client(b""), own.client(get("/wait/free"))
    eventually((own.folder / "free-begun").exists)
    own.process.terminate()
    eventually(lambda: not listens(own.port))
    (own.folder / "free").touch()
    assert answer(asked) == (200, b"free")
    assert read_all(silent) == b""
    assert own.process.wait(SECONDS) == 0


def test_ctrl_c_ends_it(own: Running) -> None:
    """A terminal sends it to the workers as well."""
    os.killpg(own.process.pid, signal.SIGINT)
    assert own.process.wait(SECONDS) == 0


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), SECONDS):
        return True
    return False
