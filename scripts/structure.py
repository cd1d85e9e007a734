"""Count the structure of a checkout: size, files, who imports whom. `make structure` prints it for this one.

    python scripts/structure.py [FOLDER]

A floor is a step of the longest chain of imports; a circle is a set of files that import each other when they are
loaded or inside functions; imports for type checkers alone do not count. Lines are those of .py and .pyx files,
empty ones and comments included.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import grimp

PACKAGES = ("crochet_tasks", "api", "web")


def files(folder: Path, *places: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--", *places],  # noqa: S607 - whichever git the developer has
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return [folder / name for name in listed if name.endswith((".py", ".pyx"))]


def lines(paths: list[Path]) -> list[int]:
    return [len(path.read_text(encoding="utf-8").splitlines()) for path in paths]


def circles(imports: dict[str, set[str]]) -> list[set[str]]:
    """The strongly connected components, smallest last: those of one module are no circles (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in imports[module]:
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            at = stack.index(module)
            found.append(set(stack[at:]))
            del stack[at:]

    for module in imports:
        if module not in index:
            visit(module)
    return found


def floors(imports: dict[str, set[str]], groups: list[set[str]]) -> int:
    """Length of the longest chain of imports; a circle counts as one step. `groups` come in order of dependency."""
    group_of = {module: number for number, group in enumerate(groups) for module in group}
    height: dict[int, int] = {}
    for number, group in enumerate(groups):
        below = {group_of[other] for module in group for other in imports[module]} - {number}
        height[number] = 1 + max((height[other] for other in below), default=0)
    return max(height.values())


def in_words(groups: list[set[str]]) -> str:
    sizes = [len(group) for group in groups if len(group) > 1]
    return f"{len(sizes)}, {max(sizes)}" if sizes else "none"


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    sys.path.insert(0, str(folder))
    sys.setrecursionlimit(10_000)
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)
    imports = {m: set(graph.find_modules_directly_imported_by(m)) & graph.modules for m in graph.modules}
    groups = circles(imports)
    # The same between packages and the modules of the root.
    place = {m: ".".join(m.split(".")[:2]) if m.startswith("crochet_tasks") else m.split(".")[0] for m in graph.modules}
    rooms: dict[str, set[str]] = {room: set() for room in {*place.values()} - {"crochet_tasks"}}
    for module, others in imports.items():
        if place[module] in rooms:
            rooms[place[module]] |= {place[other] for other in others} & rooms.keys() - {place[module]}
    large = circles(rooms)
    code, tests = files(folder, *PACKAGES, "celeryconfig.py"), files(folder, "tests")
    sizes = lines(code)
    loose = [path for path in code if path.parent == folder / "crochet_tasks"]
    rows = [
        ("lines of code (crochet_tasks, api, web)", f"{sum(sizes):,}"),
        ("lines of tests", f"{sum(lines(tests)):,}"),
        ("modules", f"{len(code)}"),
        ("modules in the root of crochet_tasks", f"{len(loose)}"),
        ("median and longest file", f"{statistics.median(sizes):.0f}, {max(sizes)}"),
        ("files over 400 lines", f"{sum(size > 400 for size in sizes)}"),
        ("floors of files", f"{floors(imports, groups)}"),
        ("circles of files, largest", in_words(groups)),
        ("floors of packages and root modules", f"{floors(rooms, large)}"),
        ("circles of packages, largest", in_words(large)),
    ]
    for name, value in rows:
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
