"""Checks of a set-up, each with what to do about it: what `crochet doctor` prints."""

from __future__ import annotations

from typing import NamedTuple


class Check(NamedTuple):
    """One finding. `advice`, where it is not empty, is what to do; with `well` it is only a hint."""

    name: str
    well: bool
    found: str
    advice: str = ""


def well(name: str, found: str, hint: str = "") -> Check:
    return Check(name, well=True, found=found, advice=hint)


def wrong(name: str, found: str, advice: str) -> Check:
    return Check(name, well=False, found=found, advice=advice)
