"""The page of one person on their own machine: `crochet view` prints an address that lets in once.

Who opens it gets a cookie that is good until the command ends. Everything else is refused, also what other programs
and other users of this machine ask for, and pages of other sites (api.security admits ANONYMOUS from here only).
"""

from __future__ import annotations

import hmac
import secrets
import threading

from flask import Response, request, session
from flask_openapi import OpenAPI

import web
from api.security import ANONYMOUS, Caller
from crochet_tasks.db.process import Process
from crochet_tasks.errors import NotLoggedIn
from crochet_tasks.settings import Settings
from web.pages import DOOR, to

_NONCE = "here"


class Door:
    """Lets in who has the token, once."""

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(32)
        self._nonce = secrets.token_urlsafe(16)
        self._lock = threading.Lock()

    def caller(self) -> Caller:
        if not hmac.compare_digest(str(session.get(_NONCE, "")), self._nonce):
            raise NotLoggedIn(reason="the address that 'crochet view' printed lets in once; start it again for another")
        return ANONYMOUS

    def enter(self) -> Response:
        """The view behind the printed address."""
        given = request.args.get("token", "")
        with self._lock:
            good = bool(self.token) and hmac.compare_digest(given.encode(), self.token.encode())
            if good:
                self.token = ""
        if good:
            session.clear()
            session[_NONCE] = self._nonce
        return to("corpora")


def create_app(settings: Settings, process: Process, door: Door) -> OpenAPI:
    """The page on a process that is open already. `settings` has a made-up secret: sessions end with the command."""
    app = web.create_app(settings, door.caller)
    app.extensions["crochet.process"] = process
    app.extensions[DOOR] = door
    app.add_url_rule("/enter", "enter", door.enter)
    return app
