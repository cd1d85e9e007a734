"""The API: tenants, keys, sessions, answers given, a log of security; what can be changed of a corpus."""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    # Plain SQL, as one reads it in psql; straight to the driver, which takes many statements at once.
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
