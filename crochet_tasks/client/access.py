"""The part of the client that is about who may do what: keys, tenants and tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal
from urllib.parse import quote

from crochet_tasks.client.calls import Call, in_json, posted
from crochet_tasks.client.typed import Requests, every
from crochet_tasks.schemas.access import KeyLine, KeyMade, TenantLine, TenantUse, Tokens
from crochet_tasks.schemas.answers import KeyPage, TenantPage

MERGE_PATCH = "application/merge-patch+json"
MOST = 1000
"""on one page"""


class AccessCalls(Requests):
    """Of one API."""

    def keys_page(self, *, tenant: str | None = None, limit: int = MOST, cursor: str | None = None) -> KeyPage:
        return self._get(KeyPage, "/v1/keys", tenant=tenant, limit=limit, cursor=cursor)

    def keys(self, *, tenant: str | None = None) -> Iterator[KeyLine]:
        """Newest first, also those that have ended."""
        return every(lambda cursor: self.keys_page(tenant=tenant, cursor=cursor), lambda page: page.keys)

    def create_key(self, name: str, **fields: Any) -> KeyMade:
        """`fields`: scope, corpora, days, tenant. Raises CorpusUnknown, OperatorNeeded, TenantUnknown."""
        return self._read(KeyMade, posted("/v1/keys", {"name": name, **fields}, again=False))

    def rotate_key(self, key: str, grace: int = 0) -> KeyMade:
        """Raises KeyUnknown, KeyEnded."""
        return self._read(KeyMade, posted(f"/v1/keys/{quote(key)}/rotate", {"grace": grace}, again=False))

    def tenants_page(self, *, limit: int = MOST, cursor: str | None = None) -> TenantPage:
        return self._get(TenantPage, "/v1/tenants", limit=limit, cursor=cursor)

    def tenants(self) -> Iterator[TenantLine]:
        """For operators. Newest first."""
        return every(lambda cursor: self.tenants_page(cursor=cursor), lambda page: page.tenants)

    def tenant(self, tenant: str) -> TenantUse:
        """With how much of its quotas it uses. Raises OperatorNeeded, TenantUnknown."""
        return self._get(TenantUse, f"/v1/tenants/{quote(tenant)}")

    def create_tenant(self, name: str) -> TenantLine:
        """Raises OperatorNeeded, TenantExists."""
        return self._read(TenantLine, posted("/v1/tenants", {"name": name}, again=False))

    def change_tenant(self, tenant: str, /, **changes: Any) -> TenantLine:
        """`changes`: fields of TenantLine, and `suspended`. Raises TenantExists, TenantNeeded, TenantUnknown."""
        headers = {"Content-Type": MERGE_PATCH}
        path = f"/v1/tenants/{quote(tenant)}"
        return self._read(TenantLine, Call("PATCH", path, again=False, headers=headers, content=in_json(changes)))

    def delete_tenant(self, tenant: str, *, confirm: str) -> None:
        """Raises TenantNeeded, TenantNotConfirmed, TenantUnknown."""
        path = f"/v1/tenants/{quote(tenant)}"
        self._caller.send(Call("DELETE", path, again=False, parameters={"confirm": confirm}))

    def reset_second_factor(self, key: str) -> KeyLine:
        """Raises KeyUnknown, KeyEnded."""
        return self._read(KeyLine, Call("DELETE", f"/v1/keys/{quote(key)}/second-factor", again=True))

    def revoke_key(self, key: str) -> KeyLine:
        """Raises KeyUnknown, KeyEnded."""
        return self._read(KeyLine, Call("POST", f"/v1/keys/{quote(key)}/revoke", again=False))

    # ── tokens ──────────────────────────────────────────────────────────────────────────────────

    def exchange_key(self, scopes: Sequence[Literal["read", "write", "operate", "admin"]] | None = None) -> Tokens:
        """An access token, and one to renew it with, for this key and these of its scopes or all."""
        body = {} if scopes is None else {"scopes": list(scopes)}
        return self._read(Tokens, posted("/v1/tokens", body, again=False))

    def exchange_id_token(self, id_token: str) -> Tokens:
        """Tokens for a fresh ID token of the OpenID provider; it counts once. Raises LogInRefused, OidcOff."""
        return self._read(Tokens, posted("/v1/tokens/oidc", {"id_token": id_token}, again=False))

    def refresh_tokens(self, refresh_token: str) -> Tokens:
        """Never retried: a refresh token that is used a second time counts as stolen."""
        return self._read(Tokens, posted("/v1/tokens/refresh", {"refresh_token": refresh_token}, again=False))

    def end_session(self) -> None:
        """End the session of this client's access token; with a key, all sessions of the key."""
        self._caller.send(Call("DELETE", "/v1/tokens", again=False))
