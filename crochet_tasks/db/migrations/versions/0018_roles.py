"""The scope `operate`, and keys that are limited to corpora."""

from pathlib import Path

from alembic import op

revision = "0018"
down_revision = "0017"
expands = "another scope is allowed, and none of those before is refused"


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
