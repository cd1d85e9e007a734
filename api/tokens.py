"""Access tokens: issued for a key, refreshed, ended."""

from __future__ import annotations

import uuid

from flask import Response

from api import people, process, responses, security, security_log
from api.bodies import Exchange, IdToken, Refresh
from api.openapi import errors
from api.responses import Answered
from api.routes import NEEDS_KEY, Routes
from crochet_tasks.access import tokens
from crochet_tasks.db import access
from crochet_tasks.errors import KeyNeeded, LogInRefused, OidcOff, OidcUnavailable, TokensOff, Unauthorized
from crochet_tasks.schemas.access import Tokens

api = Routes("tokens", "/v1/tokens", open_to_all=True)


@api.post(
    "",
    responses={201: Tokens, **errors(KeyNeeded, TokensOff, of_corpus=False)},
    security=NEEDS_KEY,
    operation_id="createTokens",
)
@security.requires("read", filters=True)
def create(body: Exchange) -> Answered:
    """Exchange an API key for an access token, which a page can keep: it is good for ten minutes.

    It ends with its key. A refresh token is good once, for the next pair of tokens.
    """
    caller = security.caller()
    if caller.session is not None or not caller.hash:
        raise KeyNeeded
    with process.current().database.transaction() as connection:
        key = access.key(connection, caller.key)
        if key is None:
            raise Unauthorized(reason="there is no such key")
        tokens.granted(key, body.scopes)  # what is refused begins no session: it must not count for the throttle
        entry = security_log.throttled("session.begun", caller.key, {})
        made = tokens.exchange(connection, process.settings(), key, body.scopes, entry)
    return responses.json(made, 201)


@api.post("/refresh", responses={200: Tokens, **errors(TokensOff, of_corpus=False)}, operation_id="refreshTokens")
def refresh(body: Refresh) -> Answered:
    """Exchange a refresh token for a new pair of tokens. One that was used before ends its session: it was stolen."""
    entry = security_log.entry("session")
    return responses.json(tokens.refresh(process.current().database, process.settings(), body.refresh_token, entry))


@api.post(
    "/oidc",
    responses={
        201: Tokens,
        **errors(LogInRefused, OidcOff, OidcUnavailable, TokensOff, of_corpus=False),
    },
    operation_id="exchangeIdToken",
)
def exchange(body: IdToken) -> Answered:
    """Exchange an ID token of the OpenID provider, which has to be fresh and counts once, for tokens of this API."""
    return responses.json(people.exchanged(body.id_token), 201)


@api.delete(
    "",
    responses={204: None, **errors(of_corpus=False)},
    security=NEEDS_KEY,
    operation_id="deleteTokens",
)
@security.requires("read", filters=True)
def delete() -> Answered:
    """End the session of the access token that sends this; with an API key, end all sessions of the key."""
    caller = security.caller()
    with process.current().database.transaction() as connection:
        key = access.key(connection, caller.key)
        if caller.session is not None:
            ended = access.end_sessions(connection, number=uuid.UUID(caller.session))
        else:
            ended = 0 if key is None else access.end_sessions(connection, key=key.id)
        entry = (
            security_log.throttled("session.ended", caller.key, {"session": caller.session or "all"}) if ended else None
        )
        if entry is not None:
            access.add_log_entry(connection, entry)
    return Response(status=204)
