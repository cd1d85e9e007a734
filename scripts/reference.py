"""Write docs/settings.md, docs/cli.md, docs/retention.md and the settings of Kubernetes from the code; with --check, say which of them is not what it would be.

python scripts/reference.py [--check]
"""

# ruff: noqa: E501 - documents are wrapped as documents

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from crochet_tasks.cli import app
from crochet_tasks.db.retention import RULES
from crochet_tasks.settings import Settings, variable

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"

SETTINGS = """# Settings

Made from `crochet_tasks/settings` by `make reference`; a test compares them.

Read at start from the environment and from a file, and checked: an invalid value is refused with the name of its variable.
An option of a command wins over the environment, and the environment over the file.
The file is TOML, by default `crochet-tasks/config.toml` in your user configuration folder (`~/.config` on Linux), or the one
that `CROCHET_CONFIG_FILE` names. It holds names in lower case, without `CROCHET_`:

    database_url = "postgresql://crochet@db/crochet"
    log_level = "warning"

`crochet settings` shows what is in force and where each value comes from; services log at their start what is set (event
`settings`), and each variable that begins with `CROCHET_` and is no setting (event `settings_warning`).
`crochet doctor` lists everything that is wrong.

Values that contradict each other are refused: `CROCHET_RETRY_FIRST` above `CROCHET_RETRY_LONGEST`, `CROCHET_LOCK_TIMEOUT` above
`CROCHET_STATEMENT_TIMEOUT`. Paths that cannot be used (`CROCHET_STATUS_FILE`, `CROCHET_HEALTH_DIR`, `CROCHET_KEY_FILE`) end a service at its start.

| variable | default | meaning |
|---|---|---|
"""

COMMANDS = """# Commands

Made from the commands by `make reference`; a test compares them. `crochet COMMAND --help` shows the same.
`crochet --install-completion` lets the shell (bash, zsh, fish) complete commands and options; `--show-completion` prints the script.

Exit codes: 0 done, 1 internal error, failed work or a corrupt store, 2 usage, 3 bad input, 4 a service that is needed does not
answer, 130 and 143 stopped by Ctrl-C or SIGTERM. Output goes to standard output; progress and notes go to standard error, and
what cannot be written there is dropped. Output that cannot be written is an error (1, `output_failed`); a reader that has gone is none.

"""


RETENTION = """# What is kept how long

Made from `crochet_tasks/db/retention.py` by `make reference`; a test compares them.

Texts, phrases, orthos and what they wait on are kept until their corpus is deleted. What comes with the work is deleted when it is older than the settings say:
by the relay, in transactions of at most 1,000 rows, for at most a tenth of its time, and at the end of `crochet run`. `crochet_rows_removed_total` counts it ([metrics.md](metrics.md)).

| rows | kept for | set by | what stays however old it is |
|---|---|---|---|
"""

MORE_RETENTION = """
`work` is the outbox, too: what is published is the open rows, and a finished row has no further use but to be looked at. With it go its `attempts`. Counts of finished work in `crochet status`, in the console and in the API are those of the rows that there are.

Three kinds of rows are bounded without a clock: of the searches for the best a corpus keeps the newest 50; a deleted corpus is out of sight at once and its rows go within minutes, so that what somebody asks to have deleted is deleted (an [archive](archive.md) or a [backup](recovery.md) before that brings it back);
a text that failed or was cancelled has a row until its corpus is deleted, because it can be accepted again.

What is deleted leaves room that new rows fill, once autovacuum has been there: [How large it is](operations.md#how-large-it-is).
"""

KUBERNETES = """# Made from crochet_tasks/settings by `make reference`; a test compares them. All pods of the program have these.
# To change one, set it in an overlay: configMapGenerator, behavior: merge. What is secret is in Secrets, addresses are in the manifests.
"""
IN_KUBERNETES = {
    "environment": "production",
    "log_format": "json",
    "api_host": "0.0.0.0",  # noqa: S104 - in the pod; policies say who reaches it
    "api_port": "8080",
    "api_proxies": "1",
    "flower_host": "0.0.0.0",  # noqa: S104 - as above
    "flower_port": "5555",
    "metrics_host": "0.0.0.0",  # noqa: S104 - as above
    "metrics_port": "9464",
    "task_seconds": "30",
    "drain": "30",
}
OF_A_CLIENT = {"url", "key_file", "plain_http"}
NOT_IN_KUBERNETES = {"state_dir", "config_file", "health_dir", "status_file", *OF_A_CLIENT}


def kubernetes() -> str:
    """An env file with every setting that a ConfigMap may hold: set, or as a comment with its default."""
    lines = []
    for name, field in Settings.model_fields.items():
        if name in NOT_IN_KUBERNETES or "SecretStr" in str(field.annotation):
            continue
        lines.append(f"\n# {' '.join(str(field.description).split())}\n")
        if name in IN_KUBERNETES:
            lines.append(f"{variable(name)}={IN_KUBERNETES[name]}\n")
        else:
            lines.append(f"#{variable(name)}={'' if field.default is None else _default(name)}\n")
    return KUBERNETES + "".join(lines)


def retention() -> str:
    return RETENTION + "".join(map(_rule, RULES)) + MORE_RETENTION


def _rule(rule: Any) -> str:
    if rule.setting is not None:
        kept, by = f"{_default(rule.setting)} {rule.setting.rpartition('_')[2]}", f"`{variable(rule.setting)}`"
    else:
        kept, by = "an hour" if rule.seconds else "until it ends", "fixed"
    return f"| {rule.what} | {kept} | {by} | {rule.kept} |\n"


def settings() -> str:
    return SETTINGS + "".join(
        f"| `{variable(name)}` | {_default(name)} | {field.description} |\n"
        for name, field in Settings.model_fields.items()
    )


def _default(name: str) -> str:
    field = Settings.model_fields[name]
    if name == "state_dir":
        return "`crochet-tasks` in the user data folder"
    if isinstance(field.default, bool):  # 1.0 is none, and equals True
        return "on" if field.default else "off"
    return "none" if field.default is None else str(field.default)


def commands() -> str:
    return COMMANDS + "\n".join(_described(typer.main.get_command(app), "crochet")).rstrip() + "\n"


def _described(command: Any, name: str) -> Iterator[str]:
    """A section about a command, and about those of its group."""
    yield f"## `{name}`\n"
    if command.help:
        yield f"{command.help.strip()}\n"
    visible = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    yield from _usage(name, visible)
    for parameter in visible:
        yield f"- `{_spelling(parameter)}`: {_meaning(parameter)}"
    if visible:
        yield ""
    for each, sub in getattr(command, "commands", {}).items():
        yield from _described(sub, f"{name} {each}")


def _usage(name: str, visible: list[Any]) -> Iterator[str]:
    arguments = [parameter for parameter in visible if parameter.param_type_name == "argument"]
    if arguments:
        words = [f"{each.metavar}{'...' * (each.nargs != 1)}" for each in arguments]
        yield f"    {' '.join([name, '[OPTIONS]', *words])}\n"


def _spelling(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar)
    flag = parameter.is_flag
    return ", ".join(parameter.opts) + ("" if flag or not parameter.metavar else f" {parameter.metavar}")


def _meaning(parameter: Any) -> str:
    words = " ".join((parameter.help or "").split())
    default = parameter.default
    if default in (None, False, "") or callable(default):
        return words
    return f"{words} Default: {getattr(default, 'value', default)}."


def main() -> int:
    made = {
        DOCS / "settings.md": settings(),
        DOCS / "cli.md": commands(),
        DOCS / "retention.md": retention(),
        ROOT / "deploy/kubernetes/base/settings.env": kubernetes(),
    }
    if "--check" not in sys.argv:
        for path, text in made.items():
            path.write_text(text)
        return 0
    stale = [
        str(path.relative_to(ROOT)) for path, text in made.items() if not path.exists() or path.read_text() != text
    ]
    if stale:
        sys.stderr.write(f"{', '.join(stale)}: not as made from the code; run 'make reference'\n")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
