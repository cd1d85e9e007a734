"""Errors of who may ask for what: keys, tokens, log-in, tenants."""

from __future__ import annotations

from crochet_tasks.errors.base import CrochetError, Unavailable, UsageError


class Unauthorized(UsageError):
    """{reason}; send 'Authorization: Bearer' with an API key or an access token"""

    code = "unauthorized"
    status = 401


class NotLoggedIn(Unauthorized):
    """{reason}; log in with an API key"""

    code = "not_logged_in"


class CodeRefused(UsageError):
    """the code of the second factor was refused: {reason}"""

    code = "code_refused"
    status = 403


class LogInRefused(UsageError):
    """the log-in was refused: {reason}"""

    code = "log_in_refused"
    status = 403


class OidcOff(UsageError):
    """this server knows no OpenID provider: CROCHET_OIDC_ISSUER and CROCHET_OIDC_CLIENT_ID are not set"""

    code = "oidc_off"
    status = 404


class OidcUnavailable(Unavailable):
    """the OpenID provider does not do its job: {reason}"""

    code = "oidc_unavailable"


class FormRefused(UsageError):
    """this form is too old, or was sent from another site: {reason}; load the page again"""

    code = "form_refused"
    status = 403


class Forbidden(UsageError):
    """this needs the scope '{needed}', which the key or token does not have"""

    code = "forbidden"
    status = 403


class CorporaOnly(UsageError):
    """this is of the whole tenant, and the key or token is limited to some of its corpora"""

    code = "corpora_only"
    status = 403


class OperatorNeeded(UsageError):
    """this is for operators: admins of the tenant that CROCHET_OPERATOR_TENANT names"""

    code = "operator_needed"
    status = 403


class KeyNeeded(UsageError):
    """this takes an API key, not an access token: send the key that the token is for"""

    code = "key_needed"
    status = 403


class SignatureRefused(UsageError):
    """the request's signature was refused: {reason}"""

    code = "signature_refused"
    status = 403


class ForeignPage(UsageError):
    """while CROCHET_API_AUTH is off, pages of other sites may not send requests: {reason}"""

    code = "foreign_page"
    status = 403


class AuthOff(UsageError):
    """CROCHET_API_AUTH is off: that is for CROCHET_ENVIRONMENT=development on 127.0.0.1 only"""

    code = "auth_off"


class TokensOff(CrochetError):
    """this server gives no access tokens: CROCHET_JWT_SECRET is not set"""

    code = "tokens_off"
    status = 501
    public = True


class KeyUnknown(UsageError):
    """there is no key '{key}'"""

    code = "key_unknown"
    status = 404


class KeyEnded(UsageError):
    """key '{key}' is {state} already"""

    code = "key_ended"
    status = 409


class TenantUnknown(UsageError):
    """there is no tenant '{tenant}'; known: {known}"""

    code = "tenant_unknown"
    status = 404


class TenantExists(UsageError):
    """there is a tenant '{tenant}' already"""

    code = "tenant_exists"
    status = 409


class TenantNeeded(UsageError):
    """tenant '{tenant}' is that of the command line or of the operators: it is not renamed, suspended or deleted"""

    code = "tenant_needed"
    status = 409


class TenantNotConfirmed(UsageError):
    """this deletes tenant '{tenant}' with all its corpora for good; confirm it: --confirm {tenant}, or
    ?confirm={tenant}
    """

    code = "tenant_not_confirmed"
    status = 409


class TenantSuspended(UsageError):
    """the tenant is suspended, or was deleted: ask the operator of this server, who can resume it"""

    code = "tenant_suspended"
    status = 403
