"""What the manifests of CloudNativePG rely on: the owner is no superuser, and roles are made before it migrates."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import AdminShutdown, InsufficientPrivilege
from sqlalchemy.engine import make_url

from tests.support import roles
from tests.support.cli import crochet
from tests.support.manifests import FOLDER, of_kind
from tests.support.services import Postgres

pytestmark = pytest.mark.integration

EMPTY = FOLDER / "empty-database.sql"


@pytest.fixture
def owner(postgres: Postgres) -> Iterator[str]:
    """A database as `bootstrap` and `managed` of the Cluster make it; the address of its owner."""
    url = postgres.new_database("template0")
    name = str(make_url(url).database)
    spec = of_kind("production", "Cluster")["postgres"]["spec"]
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'of-the-owner'").format(sql.Identifier(name)))
        connection.execute(sql.SQL("ALTER DATABASE {0} OWNER TO {0}").format(sql.Identifier(name)))
        for statement in spec["bootstrap"]["initdb"]["postInitSQL"]:
            connection.execute(statement.replace("crochet_", f"{name}_"))
        for role in spec["managed"]["roles"]:
            kind = role["name"].removeprefix("crochet_")
            word = sql.Literal(roles.PASSWORDS[kind])
            connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(f"{name}_{kind}"), word))
            for group in role.get("inRoles", []):
                grant = sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), sql.Identifier(f"{name}_{kind}"))
                connection.execute(grant)
    yield make_url(url).set(username=name, password="of-the-owner").render_as_string(hide_password=False)
    for there in (url, make_url(url).set(database=f"{name}_before").render_as_string(hide_password=False)):
        postgres.drop_database(there)


def test_the_owner_migrates_and_grants_and_the_verifier_only_reads(owner: str) -> None:
    done = crochet("migrate", CROCHET_DATABASE_URL=owner)
    assert done.returncode == 0, done.stderr
    worker = roles.postgres(owner, "worker").replace("+psycopg", "")
    with psycopg.connect(worker, autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM work").fetchone() == (0,)
        with pytest.raises(InsufficientPrivilege):
            connection.execute("SELECT * FROM keys")
    done = crochet("corpora", "create", "harbour", CROCHET_DATABASE_URL=roles.postgres(owner, "api"))
    assert done.returncode == 0, done.stderr
    done = crochet("verify", CROCHET_DATABASE_URL=roles.postgres(owner, "backup"))
    assert done.returncode == 0, done.stderr
    assert "corpus 'harbour': no problems" in done.stdout


def test_a_backup_goes_into_an_empty_database_in_the_place_of_the_one_there_is(
    owner: str, postgres: Postgres, tmp_path: Path
) -> None:
    """As docs/kubernetes.md says it: exchange the database, restore, migrate. Only the first takes an administrator."""
    name = str(make_url(owner).database)

    def done(*command: str, url: str) -> str:
        ended = crochet(*command, CROCHET_DATABASE_URL=url)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    done("migrate", url=owner)
    done("corpora", "create", "harbour", url=roles.postgres(owner, "api"))
    done("backup", str(tmp_path / "backups"), url=roles.postgres(owner, "backup"))
    done("corpora", "create", "later", url=roles.postgres(owner, "api"))
    statements = re.findall(r"^[A-Z].*;$", EMPTY.read_text(), re.MULTILINE)
    assert len(statements) == 3
    forgotten = psycopg.connect(roles.postgres(owner, "api").replace("+psycopg", ""))
    with contextlib.closing(forgotten), psycopg.connect(postgres.url.replace("+psycopg", ""), autocommit=True) as admin:
        for statement in statements:
            admin.execute(statement.replace("crochet", name).encode())
        with pytest.raises(AdminShutdown):
            forgotten.execute("SELECT 1")
    done("restore", str(tmp_path / "backups"), url=owner)
    done("migrate", url=owner)
    for kind in ("api", "backup"):
        listed = done("corpora", "list", url=roles.postgres(owner, kind))
        assert "harbour" in listed
        assert "later" not in listed
    assert "corpus 'harbour': no problems" in done("verify", url=roles.postgres(owner, "backup"))
    before = make_url(owner).set(database=f"{name}_before").render_as_string(hide_password=False)
    assert "later" in done("corpora", "list", url=before)
