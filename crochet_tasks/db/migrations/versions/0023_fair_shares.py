"""Weights and quotas of tenants, and priorities of corpora and texts."""

from pathlib import Path

from alembic import op

revision = "0023"
down_revision = "0022"
expands = "the constraints are on columns that older programs do not write"


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
