"""Blueprints whose routes are in the OpenAPI document.

A route is described in it when the document is asked for, not when it is declared: to make the schemas of all that
routes take and answer is about a fifth of a process' start, and most processes are never asked.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any

from flask_openapi import APIBlueprint, OpenAPI, Tag
from flask_openapi.types import ParametersTuple
from flask_openapi.utils import parse_parameters

SCHEMES: dict[str, Any] = {
    "key": {"type": "http", "scheme": "bearer", "description": "An API key (`crk_...`), or an access token for one."}
}
NEEDS_KEY: list[dict[str, list[str]]] = [{"key": []}]
"""`security=` of every route that is not open to all"""


class Routes(APIBlueprint):
    """A blueprint that is described on demand."""

    def __init__(self, name: str, prefix: str, tag: str | None = None, *, open_to_all: bool = False) -> None:
        """Routes under `prefix`, which need a key if not `open_to_all`; their tag is by default `name`."""
        self._descriptions: list[Callable[[], object]] = []
        security = [] if open_to_all else NEEDS_KEY
        super().__init__(name, __name__, url_prefix=prefix, abp_tags=[Tag(name=tag or name)], abp_security=security)

    def _collect_openapi_info(self, rule: str, func: FunctionType, **about: Any) -> ParametersTuple:
        self._descriptions.append(functools.partial(super()._collect_openapi_info, rule, func, **about))
        return parse_parameters(func, doc_ui=False)

    def describe(self, app: OpenAPI) -> None:
        """Describe the routes in the document of an application."""
        for describe in self._descriptions:
            describe()
        self._descriptions.clear()
        app.tags += [tag for tag in self.tags if tag.name not in app.tag_names]
        app.tag_names += [tag.name for tag in self.tags]
        app.paths.update(self.paths)
        app.components_schemas.update(self.components_schemas)


def document(app: OpenAPI) -> dict[str, Any]:
    """The OpenAPI document of an application, as flask-openapi makes it; each time a new one."""
    for each in app.blueprints.values():
        if isinstance(each, Routes):
            each.describe(app)
    return copy.deepcopy(app.api_doc)  # it is kept, and returned each time
