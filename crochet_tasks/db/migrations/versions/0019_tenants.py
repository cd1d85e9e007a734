"""Tenants have limits, and are renamed, suspended and deleted."""

from pathlib import Path

from alembic import op

revision = "0019"
down_revision = "0018"
expands = "names are still unique among the tenants that older programs make; those that were deleted do not count"


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
