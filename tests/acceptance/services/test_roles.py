"""Every service under a user of its own in Postgres and RabbitMQ: all of its work, and nothing that it is refused."""

from __future__ import annotations

import http.client
import json

import pytest
import redis

from crochet_tasks.access import keys
from crochet_tasks.access.keys import KeySpec
from crochet_tasks.db.process import open_process
from crochet_tasks.engine.geometry import Limits
from tests.acceptance.conftest import Deploy
from tests.support import roles, services, steps
from tests.support.cluster import check, corpus_of, until, until_closed
from tests.support.commands import EVERYTHING, RELAY
from tests.support.server import HOST, take_port
from tests.support.waiting import SECONDS

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

REFUSALS = ("permission denied", "access_refused", "access refused", "not allowed")


def test_a_text_goes_through_services_of_which_each_has_its_own_user(
    deploy: Deploy, distributed_database: str, vhost: str, redis_url: str, rabbitmq: services.RabbitMQ
) -> None:
    roles.make_in_redis(redis_url)
    port = take_port()
    deployment = deploy(CROCHET_API_PORT=str(port))
    passwords = " ".join(f"{kind}={password}" for kind, password in roles.PASSWORDS.items())
    made = deployment.start("roles", CROCHET_ROLE_PASSWORDS=passwords, CROCHET_BROKER_API_URL=rabbitmq.api_url)
    assert deployment.ended(made) == 0, deployment.log(made)
    assert not [password for password in roles.PASSWORDS.values() if password in deployment.log(made)]

    def start(*command: str, kind: str = "") -> str:
        kind = kind or command[0]
        return deployment.start(
            *command,
            CROCHET_DATABASE_URL=roles.postgres(distributed_database, kind),
            CROCHET_BROKER_URL=roles.rabbitmq(vhost, kind),
            CROCHET_REDIS_URL=roles.redis_url(redis_url, kind),
        )

    names = [start(*command) for command in (RELAY, EVERYTHING, ("api",))]
    until(lambda: all(deployment.ready(name) for name in names), deployment)
    with open_process(deployment.settings, roles.postgres(distributed_database, "api")) as process:
        key = keys.create(process.database, KeySpec("test", ("admin",))).key

    def ask(method: str, path: str, body: object = None) -> tuple[int, object]:
        connection = http.client.HTTPConnection(HOST, port, timeout=SECONDS)
        try:
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        finally:
            connection.close()

    ready = ask("GET", "/health/ready")[1]
    assert isinstance(ready, dict)
    assert ready["degraded"] == []
    with deployment.process() as process:
        corpus = corpus_of(process, Limits())
        for number, body in enumerate(steps.TEXTS):
            status, answer = ask("POST", f"/v1/corpora/{corpus.name}/texts", {"title": f"text {number}", "body": body})
            assert status == 202, answer
        until_closed(process, corpus, deployment)
        check(process, corpus, steps.expected(steps.TEXTS))
        assert ask("DELETE", f"/v1/corpora/{corpus.name}?confirm={corpus.name}")[0] == 204
        until(lambda: steps.sql(process, "SELECT count(*) FROM texts") == [(0,)], deployment)  # removed by the relay
    with redis.Redis.from_url(redis_url) as server:
        assert [entry for entry in server.acl_log() if entry["username"].startswith("crochet_")] == []
        assert server.keys("crochet:*")
    for kind, other in {
        "api": "celery-other",
        "worker": "LIMITS:x",
        "relay": "LIMITS:x",
        "flower": "crochet:x",
    }.items():
        with redis.Redis.from_url(roles.redis_url(redis_url, kind)) as client:
            for command in ("FLUSHALL", "CONFIG GET *", "ACL LIST", "KEYS *", f"SET {other} 1", f"GET {other}"):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    client.execute_command(*command.split())
    for kind, found in {"api": "not asked", "relay": "process", "worker": "process"}.items():
        doctor = start("doctor", kind=kind)
        assert deployment.ended(doctor) == 0, deployment.log(doctor)
        assert f"ok     worker: {found}" in deployment.log(doctor)
    logs = deployment.logs().lower()
    assert [word for word in REFUSALS if word in logs] == []
