"""Update to the next release, and back, while clients post and read: no request fails, and no text is lost.

The next release is this one with a migration and a message format more: a checkout may have no history.
tests/acceptance/deploy/test_update.py does the same with the release before this one. `make test-deploy` runs both.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import releases, services
from tests.support.commands import EVERYTHING, RELAY
from tests.support.fleet import Behind, update_and_roll_back

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.deploy, pytest.mark.timeout(900)]


def test_the_next_release_and_back(
    tmp_path: Path, postgres: services.Postgres, vhost: str, redis_url: str, haproxy: Behind
) -> None:
    """It adds a table and a column, and its messages are of a format that the older workers cannot read."""
    postgres.start()
    url = postgres.new_database()
    servers = {"CROCHET_DATABASE_URL": url, "CROCHET_BROKER_URL": vhost, "CROCHET_REDIS_URL": redis_url}
    following = releases.following(tmp_path / "next")
    update_and_roll_back(
        tmp_path, servers, haproxy, (releases.this(), following), [RELAY, EVERYTHING], {"message_too_new"}
    )
    postgres.drop_database(url)
