"""Whether it lives, whether it can work."""

from __future__ import annotations

from typing import Literal

from flask.typing import ResponseReturnValue
from flask_openapi import APIBlueprint, Tag
from pydantic import BaseModel

api = APIBlueprint("health", __name__, url_prefix="/health", abp_tags=[Tag(name="health")])


class Live(BaseModel):
    status: Literal["live"] = "live"


@api.get("/live", responses={200: Live})
def live() -> ResponseReturnValue:
    """The process answers; nothing is said about what it needs."""
    return Live().model_dump()
