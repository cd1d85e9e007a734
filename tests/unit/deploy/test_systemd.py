"""deploy/systemd: the units start commands that exist, with settings that exist."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from crochet_tasks import cli, settings
from crochet_tasks.settings import PREFIX, Settings
from tests.support.paths import ROOT

UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
PROGRAM = "/opt/crochet/bin/crochet"


def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text())
    return parser


@pytest.mark.parametrize("path", UNITS, ids=lambda path: str(path.name))
def test_a_unit_starts_a_command_that_the_program_takes(path: Path) -> None:
    program, *words = shlex.split(unit(path)["Service"]["ExecStart"])
    assert program == PROGRAM
    command: Any = typer.main.get_command(cli.app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context("crochet", words)


@pytest.mark.parametrize("path", UNITS, ids=lambda path: str(path.name))
def test_a_service_gives_workers_the_time_to_drain(path: Path) -> None:
    section = unit(path)["Service"]
    if section.get("Type") != "oneshot":
        assert int(section["TimeoutStopSec"]) > Settings().drain
        assert (section["KillMode"], section["Restart"]) == ("mixed", "always")


def test_searches_give_way_to_everything_else() -> None:
    """Where they and others want the same core: all of them are in one slice beside the other services, each of which
    has systemd's default, 100. By themselves the instances of a template are in a slice that has 100, too.
    """
    slices = {path.name: unit(path)["Service"].get("Slice", "system.slice") for path in UNITS}
    assert {name: found for name, found in slices.items() if found != "system.slice"} == {
        "crochet-search@.service": "system-crochetsearch.slice"
    }
    assert int(unit(UNITS[0].with_name("system-crochetsearch.slice"))["Slice"]["CPUWeight"]) < 100


def test_the_units_together_serve_every_queue() -> None:
    named = [unit(path)["Service"]["ExecStart"] for path in UNITS]
    queues = {queue for line in named for found in re.findall(r"--queues (\S+)", line) for queue in found.split(",")}
    assert queues == {"ingest", "context", "remediations", "maintenance", "search", "orthos", "best"}


def test_the_examples_of_the_environment_name_settings() -> None:
    text = "".join(path.read_text() for path in (ROOT / "deploy" / "systemd").glob("*.env.example"))
    names = set(re.findall(r"^(?:# )?([A-Z_]+)=", text, re.MULTILINE))
    assert names <= {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    assert f"{settings.PREFIX}DATABASE_URL".upper() in names
