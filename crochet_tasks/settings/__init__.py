"""The settings: one frozen object, read from the environment and a file, and checked when a process starts.

To add one: a field of Settings with its description; `make reference` writes docs/settings.md from it.
Types of values are in field_types.py, values that contradict each other in checks.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from crochet_tasks.errors import InvalidSetting, values
from crochet_tasks.schemas.reports import SettingLine
from crochet_tasks.settings import checks, source
from crochet_tasks.settings.field_types import (
    NO_HOME,
    NO_TENANT,
    NUMBERS,
    SECRET_BYTES,
    AbsolutePath,
    BrokerApiUrl,
    BrokerUrl,
    CollectorUrl,
    Host,
    Link,
    Login,
    Origins,
    PostgresUrl,
    PyroscopeUrl,
    RedisUrl,
    RolePasswords,
    Roles,
    Seconds,
    SentryDsn,
    SigningSecret,
    Tenant,
    state_dir,
)
from crochet_tasks.settings.source import (
    PREFIX,
    environment,
    forget,
    forget_libpq,
    inherited,
    is_set,
    remember,
    variable,
    version,
)

__all__ = [
    "NO_HOME",
    "NO_TENANT",
    "PREFIX",
    "SECRET_BYTES",
    "Settings",
    "environment",
    "forget",
    "forget_libpq",
    "inherited",
    "is_set",
    "misspelt",
    "remember",
    "variable",
    "version",
]


class Settings(BaseSettings):
    """Everything that can be set from outside; `Settings.load()` names the variable when a value is wrong."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    database_url: PostgresUrl | None = Field(
        default=None, description="the Postgres to use; without it a private server runs in the state folder"
    )
    database_read_url: PostgresUrl | None = Field(
        default=None, description="a standby of it, from which the API reads what the standby has already"
    )
    state_dir: AbsolutePath = Field(
        default_factory=state_dir,
        description="where the private server keeps its data (`--state`)",
    )
    max_text_bytes: int = Field(default=16_000_000, ge=1, le=256_000_000, description="a larger text is refused")
    batch_orthos: int = Field(default=32_768, ge=1, le=1_000_000, description="orthos in one batch, at the most")
    result_orthos: int = Field(
        default=1_000_000,
        ge=1,
        le=10_000_000,
        description="a search leaves the rest over after about so many orthos; smaller ones make more searches",
    )
    default_budget: Annotated[int | Literal["all"], BeforeValidator(values.budget)] = Field(
        default=10_000_000,
        description="orthos after which `crochet run`, and corpora made without a budget, search no more; or `all`",
    )
    best_part_visits: int = Field(
        default=5_000_000,
        ge=1,
        description="a search for the best orthos is cut into parts of about so many visits: a second or so",
    )
    part_words: int = Field(default=50_000, ge=1, description="a text is ingested in parts of about so many words")
    environment: Literal["development", "production"] = Field(
        default="production", description="`development` lets Flower go without a login, on loopback only"
    )
    log_format: Literal["auto", "console", "json"] = Field(
        default="auto", description="`auto`: for people in a terminal and in development, else a JSON object per line"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="what is less important is not logged"
    )
    broker_url: BrokerUrl | None = Field(
        default=None, description="the RabbitMQ to use; without it everything runs in one process"
    )
    broker_api_url: BrokerApiUrl | None = Field(
        default=None, description="RabbitMQ's management address, for Flower to show the lengths of queues"
    )
    role_passwords: RolePasswords | None = Field(
        default=None,
        description="`crochet roles` makes a user per kind of service, such as `api=PASSWORD relay=PASSWORD`",
    )
    redis_url: RedisUrl | None = Field(
        default=None, description="the Redis to use, for what may be lost; without it nothing is kept there"
    )
    startup_wait: Seconds = Field(
        default=30.0, description="seconds to wait at start for a database or broker that does not answer yet"
    )
    publish_timeout: Seconds = Field(default=5.0, description="seconds the broker may take to confirm a message")
    published_limit: int = Field(
        default=32,
        ge=1,
        le=10_000,
        description="work of each kind, such as searches, that is published at the same time, at the most",
    )
    task_seconds: Seconds = Field(
        default=30.0,
        description="seconds after which a task is ended; its work is tried again. All stop earlier by themselves, but "
        "for a part of a search for the best that cannot be cut, which has 120 s",
    )
    lease: Seconds = Field(
        default=60.0, description="seconds after which published work that was not finished is published again"
    )
    relay_pause: Seconds = Field(default=0.2, description="seconds between two polls of the relay")
    max_attempts: int = Field(
        default=8, ge=1, le=100, description="times that a piece of work is tried before it counts as failed"
    )
    retry_first: Seconds = Field(
        default=1.0, description="seconds before the second try, more or less; each further pause is twice as long"
    )
    retry_longest: Seconds = Field(default=300.0, description="seconds between two tries, at the most")
    delivery_limit: int = Field(
        default=3, ge=1, le=100, description="times that a message is delivered again when its worker dies"
    )
    concurrency: int = Field(default=1, ge=1, le=256, description="processes of one worker (`--concurrency`)")
    drain: Seconds = Field(default=30.0, description="seconds that a stopping worker may spend on the tasks it runs")
    worker_cache_bytes: int = Field(
        default=512_000_000, ge=1, description="what a process of a worker keeps in memory of the phrases of corpora"
    )
    api_host: Host = Field(default="127.0.0.1", description="where the API listens")
    api_port: int = Field(default=8080, ge=1, le=65_535, description="the API's port")
    api_auth: bool = Field(
        default=True, description="`off`: any program of this machine may do anything; in development on loopback only"
    )
    api_timeout: Seconds = Field(default=5.0, description="seconds one SQL statement of the API may take")
    api_cache_bytes: int = Field(
        default=100_000_000, ge=1_000_000, description="bytes that a process of the API caches"
    )
    api_proxies: int = Field(
        default=0, ge=0, le=8, description="how many proxies before the API say who asks (X-Forwarded-For)"
    )
    api_origins: Origins | None = Field(
        default=None, description="pages of these origins may ask the API, e.g. `https://pages.example`"
    )
    api_credentials: bool = Field(
        default=False, description="`on`: these pages may send client certificates; the API itself takes no cookies"
    )
    api_rate: int = Field(default=600, ge=1, description="requests in a minute with one key, at the most")
    api_rate_high: int = Field(default=6000, ge=1, description="the same for keys made with `--tier high`")
    api_rate_anonymous: int = Field(
        default=60, ge=1, description="requests in a minute without a good key, from one address, at the most"
    )
    jwt_secret: SigningSecret | None = Field(
        default=None,
        description="what access tokens and sessions of pages are signed with, 32 bytes at least; without, none",
    )
    max_waiting_texts: int = Field(
        default=1000, ge=1, le=100_000, description="texts of a corpus that may wait; the API takes no more then"
    )
    max_open_work: int = Field(
        default=50_000, ge=1, le=10_000_000, description="searches of a corpus that may be open; no more texts then"
    )
    max_corpora: int = Field(
        default=1000, ge=1, le=1_000_000, description="corpora of a tenant, at the most, where the API makes them"
    )
    api_listeners: int = Field(
        default=4,
        ge=0,
        le=1000,
        description="who may follow the events at once, in one process of the API; one tenant has half",
    )
    api_events_seconds: Seconds = Field(
        default=60.0, description="seconds that one may follow the events with one request, at the most"
    )
    work_days: int = Field(
        default=30, ge=1, le=36_500, description="days that finished work is kept, with the tries that it took"
    )
    audit_days: int = Field(
        default=90, ge=31, le=36_500, description="days that a change of state of work and texts is kept"
    )
    dead_letter_days: int = Field(
        default=90, ge=1, le=36_500, description="days that a dead letter which names no work is kept"
    )
    idempotency_hours: int = Field(
        default=24,
        ge=1,
        le=8760,
        description="hours in which a request with the same Idempotency-Key is answered again",
    )
    security_log_days: int = Field(
        default=365, ge=31, le=36_500, description="days that a line of the security log is kept"
    )
    oidc_issuer: Link | None = Field(
        default=None, description="the OpenID provider by which people log in, found by discovery; without it, none do"
    )
    oidc_client_id: str | None = Field(default=None, description="what this deployment is called there")
    oidc_client_secret: SecretStr | None = Field(
        default=None, description="its password there; a public client has none"
    )
    oidc_roles_claim: str = Field(
        default="roles",
        description="the claim that has a person's roles; in an object, with dots: `realm_access.roles`",
    )
    oidc_roles: Roles | None = Field(
        default=None,
        description="the scope of each role, e.g. `staff=read,admins=admin`; by default reader, writer, operator, "
        "administrator",
    )
    oidc_tenant: Tenant = Field(default="default", description="the tenant of people who log in, without the next one")
    oidc_tenant_claim: str | None = Field(default=None, description="the claim that has a person's tenant")
    second_factor: bool = Field(
        default=False, description="`on`: who logs in on the page with a key of scope `admin` needs a second factor"
    )
    operator_tenant: Tenant = Field(
        default="default",
        description="admins of this tenant run the place: in the console they see all tenants, queues and workers; "
        "`-`: no tenant, only the command line",
    )
    signed_admin: bool = Field(
        default=False, description="`on`: what needs the scope `operate` or `admin` must be signed, too"
    )
    url: str | None = Field(
        default=None, description="the API to ask (`--url`); without it, commands work on this machine"
    )
    key: SecretStr | None = Field(default=None, description="the API key or access token to ask it with (`--key`)")
    key_file: Path | None = Field(default=None, description="a file that holds the key (`--key-file`)")
    plain_http: bool = Field(
        default=False,
        description="`on`: send the key to other machines over plain http, too; it can be read on the way",
    )
    flower_host: Host = Field(default="127.0.0.1", description="where Flower listens")
    flower_port: int = Field(default=5555, ge=1, le=65_535, description="Flower's port")
    flower_url: Link | None = Field(default=None, description="where operators find Flower: the console links to it")
    grafana_url: Link | None = Field(default=None, description="where operators find Grafana: the console links to it")
    flower_auth: Login | None = Field(
        default=None, description="Flower's login, user:password; needed outside development"
    )
    otlp_url: CollectorUrl | None = Field(
        default=None, description="where traces go, OTLP/HTTP without `/v1/traces`; without it there are none"
    )
    trace_ratio: float = Field(
        default=0.1, ge=0.0, le=1.0, description="share of the traces that are recorded and sent, from 0 to 1"
    )
    pyroscope_url: PyroscopeUrl | None = Field(
        default=None, description="the Pyroscope that profiles go to; without it there are none"
    )
    otlp_logs: bool = Field(
        default=False, description="`on`: send each log line to `CROCHET_OTLP_URL`, too, to `/v1/logs`"
    )
    sentry_dsn: SentryDsn | None = Field(
        default=None, description="where errors are reported: the DSN of a Sentry or GlitchTip; without it they are not"
    )
    profile_rate: int = Field(default=10, ge=1, le=1000, description="samples of a process per second for its profile")
    metrics_host: Host = Field(default="127.0.0.1", description="where services answer Prometheus")
    metrics_port: int | None = Field(
        default=None, ge=1, le=65_529, description="a service's port for Prometheus; `up` takes it and those after it"
    )
    health_dir: Path | None = Field(
        default=None,
        description="where workers and relays write that they make progress; by default in the temporary folder",
    )
    status_file: Path | None = Field(
        default=None, description="a file into which the relay writes the progress of everything, as JSON"
    )
    status_file_every: Seconds = Field(default=5.0, description="seconds between two writings of the status file")
    statement_timeout: Seconds = Field(default=60.0, description="seconds one SQL statement may take")
    lock_timeout: Seconds = Field(default=30.0, description="seconds one SQL statement may wait for a lock")

    config_file: Path | None = Field(
        default=None,
        description="a TOML file with settings, by default `crochet-tasks/config.toml` in the user's configuration",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _plain_number(cls, value: object, info: ValidationInfo) -> object:
        """Refuse numbers that Python reads and other programs do not, or as another number: 1_000, +5, 1.0 for 1."""
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, str) and kind in NUMBERS:
            return NUMBERS[kind](value)
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Options win over the environment, and that over the file."""
        return init_settings, env_settings, InitSettingsSource(settings_cls, source.in_file())

    @classmethod
    def load(cls, **options: Any) -> Settings:
        """The settings of this process; `options` (a command's options) wins over the environment.

        Raises InvalidSetting, which names the variable but never repeats the value: it may be a secret.
        """
        settings, problems = cls._read(options)
        if settings is None:
            raise problems[0] from None
        return settings

    @classmethod
    def problems(cls, **options: Any) -> list[InvalidSetting]:
        """What `load` would raise, for every wrong value and not only the first."""
        return cls._read(options)[1]

    @classmethod
    def _read(cls, options: dict[str, Any]) -> tuple[Settings | None, list[InvalidSetting]]:
        try:
            settings = cls(**options)
        except ValidationError as error:
            return None, _problems(error)
        except InvalidSetting as problem:  # the file
            return None, [problem]
        problems = checks.contradictions(settings)
        return (None if problems else settings), problems

    @property
    def budget(self) -> int | None:
        """The default budget in orthos; None: there is none."""
        return None if self.default_budget == "all" else self.default_budget

    def warnings(self) -> list[str]:
        """What is doubtful: variables that are no setting, and values that hardly do what they are meant to."""
        return (
            [f"{name} is no setting; if it is misspelt, correct it" for name in misspelt()]
            + removed()
            + checks.doubts(self)
        )

    def path_problems(self) -> list[InvalidSetting]:
        """What is wrong with the paths that are set."""
        return checks.paths(self)

    def effective(self, options: Mapping[str, Any] = MappingProxyType({})) -> list[SettingLine]:
        """Every setting as it is in force, secrets masked, and where it comes from."""
        return checks.effective(self, options)


def _problems(error: ValidationError) -> list[InvalidSetting]:
    found = []
    for detail in error.errors(include_input=False, include_url=False):
        name = str(detail["loc"][0]) if detail["loc"] else "*"
        where = f" (in {source.file()})" if name in source.in_file() and not source.in_environment(name) else ""
        problem = f"{values.problem(detail['type'], detail.get('ctx', {}))}{where}"
        found.append(InvalidSetting(variable=variable(name), problem=problem))
    return found


REMOVED = {
    "result_bytes": "a result is bounded by CROCHET_RESULT_ORTHOS",
    "trace_slow": "the collector keeps slow traces (deploy/observability/collector.yml, tail_sampling)",
    "metrics_every": "metrics are scraped at CROCHET_METRICS_PORT and no longer sent",
}
"""settings of earlier versions, and what does their work now: to set one is no error"""


def removed() -> list[str]:
    """What to say of each removed setting that is still set."""
    return [f"{variable(name)} has no effect any more: {why}" for name, why in REMOVED.items() if is_set(name)]


def misspelt() -> list[str]:
    """Variables and keys of the file that are no setting although they look like one: most likely misspelt."""
    return source.unknown(set(Settings.model_fields) | set(REMOVED))
