"""Access tokens: got for a key, renewed, given back."""

from __future__ import annotations

import uuid

from flask import Response
from flask_openapi import APIBlueprint, Tag
from pydantic import BaseModel, ConfigDict, Field

from api import process, security, security_log
from api import responses as answers
from api.openapi import problems as documented
from api.responses import Answered
from crochet_tasks.access import tokens
from crochet_tasks.access.keys import Scope
from crochet_tasks.db import access
from crochet_tasks.errors import KeyNeeded, TokensOff, Unauthorized
from crochet_tasks.schemas.reports import Tokens

api = APIBlueprint("tokens", __name__, url_prefix="/v1/tokens", abp_tags=[Tag(name="tokens")])


class Exchange(BaseModel):
    """What a token is wanted for."""

    model_config = ConfigDict(extra="forbid")

    scopes: list[Scope] | None = Field(
        default=None, min_length=1, max_length=3, description="those of the key, or fewer", examples=[["read"]]
    )


class Refresh(BaseModel):
    model_config = ConfigDict(extra="forbid")

    refresh_token: str = Field(max_length=200, json_schema_extra={"pattern": "^crr_[A-Za-z0-9_-]{43}$"})


@api.post(
    "",
    responses={201: Tokens, **documented(KeyNeeded, TokensOff, of_corpus=False)},
    security=security.NEEDS_KEY,
    operation_id="createTokens",
)
@security.requires("read")
def create(body: Exchange) -> Answered:
    """Exchange an API key for an access token, which a page can keep: it is good for ten minutes.

    It ends with its key. A refresh token is good once, for the next pair of tokens.
    """
    caller = security.caller()
    if caller.session is not None or not caller.hash:
        raise KeyNeeded
    deed = security_log.seldom("session.begun", caller.key, {})
    with process.process().database.transaction() as connection:
        key = access.key(connection, caller.key)
        if key is None:
            raise Unauthorized(reason="there is no such key")
        made = tokens.exchange(connection, process.settings(), key, body.scopes, deed)
    return answers.json(made, 201)


@api.post("/refresh", responses={200: Tokens, **documented(TokensOff, of_corpus=False)}, operation_id="refreshTokens")
def refresh(body: Refresh) -> Answered:
    """Exchange a refresh token for a new pair of tokens. One that was used before ends its session: it was stolen."""
    asked = security_log.entry("session")
    return answers.json(tokens.refresh(process.process().database, process.settings(), body.refresh_token, asked))


@api.delete(
    "", responses={204: None, **documented(of_corpus=False)}, security=security.NEEDS_KEY, operation_id="deleteTokens"
)
@security.requires("read")
def delete() -> Answered:
    """End the session of the access token that this is asked with; asked with an API key, all sessions of the key."""
    caller = security.caller()
    with process.process().database.transaction() as connection:
        key = access.key(connection, caller.key)
        if caller.session is not None:
            ended = access.end_sessions(connection, number=uuid.UUID(caller.session))
        else:
            ended = 0 if key is None else access.end_sessions(connection, key=key.id)
        deed = security_log.seldom("session.ended", caller.key, {"session": caller.session or "all"}) if ended else None
        if deed is not None:
            access.note(connection, deed)
    return Response(status=204)
