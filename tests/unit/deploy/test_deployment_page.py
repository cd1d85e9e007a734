"""docs/deployment.md names what there is. Its commands are run by tests/acceptance/deploy/test_page.py."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer.main
import yaml

from crochet_tasks import cli
from tests.support.deployment_page import PAGE, commands, lines, not_run
from tests.support.paths import ROOT

SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
COMMANDS = {line.text for line in commands()}


def test_its_settings_are_variables_of_the_example() -> None:
    known = set(re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    shown = {line.text.partition("=")[0] for line in lines() if line.is_setting}
    assert shown
    assert shown <= known | {"COMPOSE_PROFILES"}


def test_its_containers_are_services() -> None:
    named = {match for line in COMMANDS for match in re.findall(r"docker compose exec (?:--no-TTY )?(\S+)", line)}
    named |= {match for line in COMMANDS for match in re.findall(r"docker compose run --rm (\w+)", line)}
    assert named > {"api", "postgres"}
    assert named <= SERVICES.keys()


@pytest.mark.parametrize(
    "line", sorted(line for line in COMMANDS if re.search(r"compose exec (--no-TTY )?\S+ crochet ", line))
)
def test_the_program_takes_its_commands(line: str) -> None:
    """Each command, with its options and arguments."""
    arguments = shlex.split(re.split(r" ?[<>|)]", line.partition(" crochet ")[2])[0])
    group: Any = typer.main.get_command(cli.app)
    while hasattr(group, "commands"):
        while arguments[0].startswith("--"):
            arguments = arguments[2:]  # --url and --key-file, of the program itself
        group, arguments = group.commands[arguments[0]], arguments[1:]
    group.make_context("crochet", arguments)


def test_what_is_not_run_is_on_the_page() -> None:
    assert {"git pull", "docker compose logs --follow --tail 50 relay ingest search orthos"} == not_run()
    assert "tests/acceptance/deploy/test_page.py" in PAGE.read_text()
