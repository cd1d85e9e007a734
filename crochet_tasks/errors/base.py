"""The base of all errors that are raised on purpose, and their three families.

An error's docstring is its message; the fields in braces are the keyword arguments it is raised
with, kept in `context` for logs and API answers. `code` is stable: programs match it, never
the message. `retry` says what a task does about it, `status` is the HTTP status and
`exit_code` the exit status of the command line.
"""

from __future__ import annotations

import enum
import inspect
from typing import ClassVar, Self


class Retry(enum.StrEnum):
    """Whether the same work may succeed when it is tried again."""

    NEVER = "never"
    LATER = "later"


class CrochetError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    retry: ClassVar[Retry] = Retry.NEVER
    attempts: ClassVar[int] = 1
    """how many attempts of the work it uses up"""
    public: ClassVar[bool] = False
    """whether tenants may read the message although the status is 500 or more (`public_message`)"""

    def __init__(self, *words: str, **context: object) -> None:
        """Takes the fields of the message; or the message itself, as Celery passes it when it loads a task's result."""
        self.context = context
        message = words[0] if words else (inspect.getdoc(type(self)) or "").format(**context).replace("\n", " ")
        super().__init__(message)

    @classmethod
    def from_message(cls, message: str, **context: object) -> Self:
        """An error with this very message, such as the client of the API got it from the server."""
        error = cls.__new__(cls)
        error.context = context
        Exception.__init__(error, message)
        return error

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), str(self), self.context)


def _rebuild(cls: type[CrochetError], message: str, context: dict[str, object]) -> CrochetError:
    return cls.from_message(message, **context)


def retry_class(error: BaseException) -> Retry:
    """The retry class of any error; one that is no CrochetError is a bug and is not retried."""
    return error.retry if isinstance(error, CrochetError) else Retry.NEVER


# ── the three families ──────────────────────────────────────────────────────────────────────────


class UsageError(CrochetError):
    """The call itself is wrong."""

    code = "usage"
    status = 400
    exit_code = 2


class BadInput(CrochetError):
    """What was given cannot be worked on."""

    code = "bad_input"
    status = 422
    exit_code = 3


class Unavailable(CrochetError):
    """A service that is needed does not answer."""

    code = "unavailable"
    status = 503
    exit_code = 4
    retry = Retry.LATER
