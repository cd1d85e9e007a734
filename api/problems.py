"""Errors as RFC 9457 problem documents, with the codes of `crochet_tasks.errors`."""

from __future__ import annotations

from flask import Flask, Response
from pydantic import ValidationError

from crochet_tasks.errors import CrochetError


def install(app: Flask) -> None:
    app.register_error_handler(CrochetError, problem)


def problem(error: CrochetError) -> Response:
    raise NotImplementedError


def invalid(error: ValidationError) -> Response:
    raise NotImplementedError
