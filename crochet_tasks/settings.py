"""The settings: one frozen object, read from the environment (CROCHET_*) and checked when a process starts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import platformdirs
from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from crochet_tasks.errors import InvalidSetting

PREFIX = "CROCHET_"


def _postgres_url(value: SecretStr) -> SecretStr:
    try:
        url = make_url(value.get_secret_value())
    except ArgumentError:
        url = None
    if url is None or url.get_backend_name() != "postgresql":
        raise ValueError("must be a Postgres address such as postgresql://user:password@host:5432/database")
    return value


Seconds = Annotated[float, Field(ge=0.001, le=86_400, allow_inf_nan=False)]


class Settings(BaseSettings):
    """Everything that can be set from outside; `Settings.load()` names the variable when a value is wrong."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    database_url: Annotated[SecretStr, AfterValidator(_postgres_url)] | None = Field(
        default=None, description="the Postgres to use; without it a private server runs in the state folder"
    )
    state_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("crochet-tasks", appauthor=False)),
        description="where the private server keeps its data (`--state`)",
    )
    max_text_bytes: int = Field(default=16_000_000, ge=1, le=256_000_000, description="a larger text is refused")
    batch_orthos: int = Field(default=32_768, ge=1, le=1_000_000, description="orthos in one batch, at the most")
    result_bytes: int = Field(
        default=4_000_000, ge=1, le=64_000_000, description="a search hands back its result when it is about this large"
    )
    part_words: int = Field(default=50_000, ge=1, description="a text is ingested in parts of about so many words")
    statement_timeout: Seconds = Field(default=60.0, description="seconds one SQL statement may take")
    lock_timeout: float = Field(
        default=30.0,
        ge=0.001,
        le=86_400,
        allow_inf_nan=False,
        description="seconds one SQL statement may wait for a lock",
    )

    @classmethod
    def load(cls, **given: Any) -> Settings:
        """The settings of this process; `given` (a command's options) wins over the environment.

        Raises InvalidSetting, which names the variable but never repeats the value: it may be a secret.
        """
        try:
            return cls(**given)
        except ValidationError as error:
            raise _problems(error)[0] from None

    @classmethod
    def problems(cls, **given: Any) -> list[InvalidSetting]:
        """What `load` would raise, for every wrong value and not only the first."""
        try:
            cls(**given)
        except ValidationError as error:
            return _problems(error)
        return []


def _problems(error: ValidationError) -> list[InvalidSetting]:
    return [
        InvalidSetting(
            variable=f"{PREFIX}{str(detail['loc'][0]).upper() if detail['loc'] else '*'}",
            problem=detail["msg"].removeprefix("Value error, "),
        )
        for detail in error.errors(include_input=False, include_url=False, include_context=False)
    ]


def strangers() -> list[str]:
    """Variables of the environment that begin like ours but are no setting: most likely misspelt."""
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    return sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)  # noqa: TID251 - this is that module
