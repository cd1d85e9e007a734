"""Batches are sorted runs of packed phrase ids, searches belong to windows; orthos are found again."""

from pathlib import Path

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    # Plain SQL, as one reads it in psql; straight to the driver, which takes many statements at once.
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
