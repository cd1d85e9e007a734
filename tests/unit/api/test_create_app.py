from __future__ import annotations

from api import create_app


def test_a_living_process_says_so_and_asks_nothing_else() -> None:
    """A living process says so without asking anything else."""
    answer = create_app().test_client().get("/health/live")
    assert (answer.status_code, answer.get_json()) == (200, {"status": "live"})
