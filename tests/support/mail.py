"""A mail server for tests: it takes every mail, and keeps it."""

from __future__ import annotations

import email.message
import email.policy
import socketserver
import threading
from typing import Self

from tests.support.server import HOST


class _Session(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        self._say("220 tests")
        while line := self.rfile.readline():
            command = line[:4].upper()
            if command == b"DATA":
                self._say("354 go on")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.mails.append(email.message_from_bytes(b"".join(lines), policy=email.policy.default))
            self._say("221 bye" if command == b"QUIT" else "250 well")

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Session)
        self.mails: list[email.message.EmailMessage] = []


class Mailbox:
    """`address` is host:port."""

    def __init__(self) -> None:
        self._server = _Server()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def address(self) -> str:
        return f"{HOST}:{self._server.server_address[1]}"

    def texts(self) -> list[str]:
        """Subject, To and plain or HTML text of each mail."""
        return [f"{each['subject']} {each['to']} {_body(each)}" for each in self._server.mails]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _body(mail: email.message.EmailMessage) -> str:
    part = mail.get_body(("plain", "html"))
    return "" if part is None else str(part.get_content())
