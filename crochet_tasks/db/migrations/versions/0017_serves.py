"""The database says which programs its schema serves, so that an older one knows whether it works with a newer one."""

from pathlib import Path

from alembic import op

revision = "0017"
down_revision = "0016"
optional = True


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
