"""Profiles, by Pyroscope's agent: where a process spends its time, by task and shape.

Loaded only where there is an address (telemetry.begin), in the process that does the work: an agent that was begun
before a fork sees the parent only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import unquote, urlsplit

import pyroscope


class Profiles:
    """The agent of this process; where its server is away the profiles are lost and nothing else."""

    def __init__(self, service: str, url: str, rate: int, queues: Sequence[str] = ()) -> None:
        parts = urlsplit(url)
        pyroscope.configure(
            application_name=f"crochet-{service}",
            server_address=parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/"),
            basic_auth_username=unquote(parts.username or ""),
            basic_auth_password=unquote(parts.password or ""),
            sample_rate=rate,  # a sample takes a quarter of a millisecond; the agent's default is 100 a second
            gil_only=False,  # searches release the GIL while they compute
            tags={"service": service, **({"queue": ",".join(queues)} if queues else {})},
        )

    @contextlib.contextmanager
    def tagged(self, tags: Mapping[str, str | None]) -> Iterator[None]:
        with pyroscope.tag_wrapper({name: value for name, value in tags.items() if value is not None}):
            yield

    def stop(self) -> None:
        pyroscope.shutdown()
