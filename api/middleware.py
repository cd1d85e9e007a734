"""What every request passes: ids, access log, limits of bodies, headers."""

from __future__ import annotations

from flask import Flask


def install(app: Flask) -> None:
    raise NotImplementedError
