"""Addresses of this machine."""

from __future__ import annotations

import pytest

from crochet_tasks.net import host_port, is_loopback


def test_addresses_are_written_as_in_urls() -> None:
    assert (host_port("127.0.0.1", 80), host_port("::1", 80)) == ("127.0.0.1:80", "[::1]:80")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("localhost.example.org", False),
    ],
)
def test_only_addresses_of_this_machine_are_loopback(host: str, loopback: bool) -> None:
    """A name can mean any machine, so it counts as one that others reach."""
    assert is_loopback(host) is loopback
