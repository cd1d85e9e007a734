"""Network namespaces: machines with addresses and cables of their own, on this one. Needs root and the program `ip`.

with chain("client", "middle", "server") as names: ...    # the client is 10.99.1.1, the server 10.99.2.2
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator

from tests.support.server import Missing


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def inside(namespace: str, *command: str) -> list[str]:
    """The command, run on that machine."""
    return ["ip", "netns", "exec", namespace, *command]


@contextlib.contextmanager
def chain(*places: str) -> Iterator[dict[str, str]]:
    """Machines in a row, each joined with the next: the cable N has 10.99.N.1 at its left and 10.99.N.2 at its right
    end. Namespaces by place. Raises Missing where none can be made.
    """
    if os.geteuid() != 0 or shutil.which("ip") is None:
        raise Missing("network namespaces need root and the package iproute2")
    prefix = f"crochet-{secrets.token_hex(3)}"
    names = {place: f"{prefix}-{place}" for place in places}
    made: list[str] = []
    try:
        for name in names.values():
            run("ip", "netns", "add", name)
            made.append(name)
            run(*inside(name, "ip", "link", "set", "lo", "up"))
        for number, (left, right) in enumerate(itertools.pairwise(places), start=1):
            ends = {names[left]: f"r{number}", names[right]: f"l{number}"}
            (here, mine), (there, other) = ends.items()
            run("ip", "link", "add", mine, "netns", here, "type", "veth", "peer", "name", other, "netns", there)
            for end, (namespace, device) in enumerate(ends.items(), start=1):
                run(*inside(namespace, "ip", "address", "add", f"10.99.{number}.{end}/24", "dev", device))
                run(*inside(namespace, "ip", "link", "set", device, "up"))
        yield names
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
