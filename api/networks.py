"""From where a request comes, as far as one client can be told from another."""

from __future__ import annotations

import ipaddress

from flask import request

OF_ONE_HOST = 64
"""bits of an IPv6 address that it cannot choose: whoever has one has all of that network"""


def network() -> str:
    """The address of who asks; of IPv6 its /64."""
    return network_of(request.remote_addr or "")


def network_of(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:  # a proxy's word, or a socket
        return address[:100]
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found), OF_ONE_HOST), strict=False))
