"""How tests put another build of the kernel in the place of the installed one."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from tests.support import kernel_builds


def test_what_was_imported_from_the_kernel_is_replaced_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    old, build, user = (ModuleType(f"crochet_tasks.{name}") for name in ("of_old", "of_old", "of_user"))
    old.grow, build.grow = object(), object()  # type: ignore[attr-defined]
    vars(user).update(grow=vars(old)["grow"], kernel=old, kind=None)  # `kind`: None, and no name of the kernel
    for module in (old, user):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    kernel_builds.put(old, build)
    assert vars(user)["grow"] is vars(build)["grow"]
    assert vars(user)["kernel"] is build
    assert vars(user)["kind"] is None
    assert sys.modules[old.__name__] is build
