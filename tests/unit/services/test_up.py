"""What `crochet up` runs, and what it says of it."""

from __future__ import annotations

import pytest

from crochet_tasks.errors import NotOnLoopback, SettingMissing
from crochet_tasks.services import up
from crochet_tasks.services.serving import check_flower
from crochet_tasks.settings import Settings


def test_every_queue_has_a_worker() -> None:
    """Among the services are workers for all queues; the number of searching processes is as wanted."""
    services = up.services_of(up.Options(search=3, api=True, flower=False))
    workers = [service.arguments for service in services if service.arguments[0] == "worker"]
    from crochet_tasks.broker.queues import WORK

    assert sorted(name for worker in workers for name in worker[2].split(",")) == sorted(WORK)
    assert ("worker", "--queues", "search,best", "--concurrency", "3") in workers
    assert [service.name for service in services if service.ends_last] == ["relay", "api"]


def test_flower_needs_a_login_but_at_home() -> None:
    """Without one it runs in development and on loopback only."""
    broker = {"broker_url": "amqp://host"}
    check_flower(Settings.load(**broker, flower_auth="a:b", flower_host="0.0.0.0"))
    for host in ("127.0.0.1", "::1", "localhost"):
        check_flower(Settings.load(**broker, environment="development", flower_host=host))
    with pytest.raises(SettingMissing, match="CROCHET_FLOWER_AUTH"):
        check_flower(Settings.load(**broker))
    for host in ("0.0.0.0", "example.org"):
        with pytest.raises(NotOnLoopback, match=host):
            check_flower(Settings.load(**broker, environment="development", flower_host=host))
    with pytest.raises(SettingMissing, match="CROCHET_BROKER_URL"):
        check_flower(Settings.load(environment="development"))


def test_it_says_where_everything_is_and_what_it_takes_to_use_it() -> None:
    """A key for the API; what Flower needs; how other commands find the private database."""
    services = up.services_of(up.Options(search=1, api=True, flower=True))
    lines = up.ready_lines(Settings.load(), services, "postgresql:///x?host=/run")
    assert "API at http://127.0.0.1:8080" in lines
    assert "'crochet keys create NAME --scope write' makes the key it needs" in lines
    assert "CROCHET_BROKER_API_URL lets it show the lengths of queues" in lines
    assert "for other commands: export CROCHET_DATABASE_URL='postgresql:///x?host=/run'" in lines
    lines = up.ready_lines(Settings.load(api_auth=False, broker_api_url="http://a:b@host/"), services, None)
    assert "it needs no key (CROCHET_API_AUTH=off)" in lines
    assert not any("keys create" in line or "CROCHET_BROKER_API_URL" in line or "export" in line for line in lines)


def test_up_gives_each_service_a_port() -> None:
    """One after the other; Flower has metrics of its own."""
    services = up.services_of(up.Options(search=1, api=True, flower=True))
    given = [service.variables for service in up.with_metrics(services, Settings(metrics_port=9100))]
    assert given == [(("CROCHET_METRICS_PORT", str(port)),) for port in range(9100, 9105)] + [()]
    assert up.with_metrics(services, Settings()) == services
