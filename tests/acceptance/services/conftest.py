"""Fixtures: settings of a deployment of its own."""

from __future__ import annotations

import pytest

from tests.support.programs import addresses


@pytest.fixture
def servers(vhost: str, redis_url: str) -> dict[str, str]:
    return addresses(vhost, redis_url)
