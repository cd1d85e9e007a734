"""People who log in by OpenID Connect."""

from pathlib import Path

from alembic import op

revision = "0020"
down_revision = "0019"
expands = "older programs leave the new column empty, which may stand in any number of rows"


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
