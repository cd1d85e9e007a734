"""Update from the commit before this one to this one, and back, under load: `make test-deploy`. Needs no container."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import releases, services
from tests.support.commands import WHOLE
from tests.support.fleet import Behind, update_and_roll_back

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.deploy, pytest.mark.timeout(1800)]


def test_from_the_release_before_to_this_one_and_back(
    tmp_path: Path, postgres: services.Postgres, vhost: str, redis_url: str, haproxy: Behind
) -> None:
    try:
        before = releases.before(tmp_path / "before")
    except releases.NoHistory as error:
        pytest.fail(f"there is no older release to update from: {error}", pytrace=False)
    postgres.start()
    url = postgres.new_database()
    servers = {"CROCHET_DATABASE_URL": url, "CROCHET_BROKER_URL": vhost, "CROCHET_REDIS_URL": redis_url}
    update_and_roll_back(tmp_path, servers, haproxy, (before, releases.this()), WHOLE, set())
    postgres.drop_database(url)
