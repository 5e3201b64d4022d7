"""Measure how the code is laid out: modules, chains and circles of imports, names, lengths.

    python experiments/checks/house.py [TREE ...] [--chain]

A column for each tree (by default this one): a checkout of another commit is compared with it by
`git worktree add /tmp/before COMMIT` and naming both. An import of a name that a package hands on
counts as one of the module that defines it, and imports for type checkers alone count too.
A circle is a set of modules each of which leads to every other. Imports that pyproject.toml excepts
from its contracts are counted in a row of their own, and in no chain or circle. A private class
counts by its name without the underscore.
"""

from __future__ import annotations

import argparse
import ast
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[2]
ROOTS = {
    "mixopt": "mixopt",
    "mixopt_proxies": "proxies/mixopt_proxies",
    "mixopt_regressors": "regressors/mixopt_regressors",
}
SHARES = (0.5, 0.9, 1.0)


class House:
    """The product's modules in one tree, read and not imported."""

    def __init__(self, folder: Path) -> None:
        """Read the sources.

        Args:
            folder: A checkout.
        """
        self.paths: dict[str, Path] = {}
        for root, place in ROOTS.items():
            for path in sorted((folder / place).rglob("*.py")):
                parts = path.relative_to(folder / place).with_suffix("").parts
                self.paths[".".join((root, *parts)).removesuffix(".__init__")] = path
        with (folder / "pyproject.toml").open("rb") as file:
            contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
        excepted = {line for one in contracts for line in one.get("ignore_imports", [])}
        self.excepted = [tuple(line.split(" -> ")) for line in sorted(excepted)]
        self.sources = {name: path.read_text("utf-8") for name, path in self.paths.items()}
        self.trees = {name: ast.parse(source) for name, source in self.sources.items()}

    @cached_property
    def edges(self) -> dict[str, set[str]]:
        """The modules that each module imports."""
        return {
            name: {
                to for to in self._imported(name) if to != name and not self._is_excepted(name, to)
            }
            for name in self.trees
        }

    def _is_excepted(self, name: str, to: str) -> bool:
        return any(name == one and f"{to}.".startswith(f"{other}.") for one, other in self.excepted)

    def _imported(self, name: str) -> Iterator[str]:
        for module, part in _imports(self.trees[name]):
            yield from self._homes(module, part)

    def _homes(self, module: str, part: str | None) -> Iterator[str]:
        """Yield the module that an imported name is defined in."""
        if part and f"{module}.{part}" in self.paths:
            yield f"{module}.{part}"
        elif module in self.paths:
            handed = [m for m, n in _imports(self.trees[module]) if n == part and part]
            is_face = self.paths[module].name == "__init__.py"
            yield from self._homes(handed[0], part) if is_face and handed else [module]

    @cached_property
    def rooms(self) -> dict[str, set[str]]:
        """What stands at the top of each distribution package, and which others each imports."""
        found: dict[str, set[str]] = {}
        for name, others in self.edges.items():
            if "." in name:
                room = _room(name)
                found.setdefault(room, set()).update(
                    {_room(other) for other in others if "." in other} - {room}
                )
        return found

    def nodes(self, kinds: type | tuple[type, ...]) -> Iterator[ast.stmt]:
        """Yield the statements of some kinds in all modules."""
        for tree in self.trees.values():
            yield from (node for node in ast.walk(tree) if isinstance(node, kinds))

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield what is measured and how it is."""
        top = [name for name in self.paths if name.count(".") == 1 and name.startswith("mixopt.")]
        packages = {name for name, path in self.paths.items() if path.name == "__init__.py"}
        faces = ("__init__", "__main__")
        yield "files", str(len(self.paths))
        yield "modules at the top of mixopt/", str(len(set(top) - packages - {"mixopt.__main__"}))
        yield "packages at the top of mixopt/", str(len(set(top) & packages))
        yield "imports excepted from the contracts", str(len(self.excepted))
        for what, graph in (("modules", self.edges), ("packages at the top", self.rooms)):
            sizes = [len(names) for names in knots(graph) if len(names) > 1]
            yield f"circles of imports: {what}", str(len(sizes))
            yield f"{what} in the largest circle", str(max(sizes, default=0))
            stops = longest_chain(graph)
            yield f"longest chain of imports: {what}", str(sum(map(len, stops)))
            yield "... a circle counted as one", str(len(stops))
        names = [node.name.lstrip("_") for node in self.nodes(ast.ClassDef)]
        yield "class names defined twice or more", _repeated(names)
        stems = (path.stem for path in self.paths.values())
        yield "file names used twice or more", _repeated(s for s in stems if s not in faces)
        functions = self.nodes((ast.FunctionDef, ast.AsyncFunctionDef))
        yield "lines of a function, p50/p90/max", _quantiles(functions, _lines)
        yield "lines of a file, p50/p90/max", _quantiles(self.sources.values(), _length)


def knots(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return sets of names that lead to each other, those that lead nowhere first (Tarjan)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = low[name] = len(number)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in number:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], number[other])
        if low[name] == number[name]:
            place = stack.index(name)
            found.append(stack[place:])
            del stack[place:]

    for name in graph:
        if name not in number:
            visit(name)
    return found


def longest_chain(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the way down along imports that meets most names, all of a circle if one of it."""
    stops = knots(graph)
    stop_of = {name: place for place, names in enumerate(stops) for name in names}
    below: list[list[list[str]]] = []
    for place, names in enumerate(stops):
        others = {stop_of[other] for name in names for other in graph[name]} - {place}
        longest = max((below[other] for other in sorted(others)), key=_met, default=[])
        below.append([names, *longest])
    return max(below, key=_met)


def _met(chain: list[list[str]]) -> int:
    return sum(map(len, chain))


def _room(name: str) -> str:
    return ".".join(name.split(".")[:2])


def _imports(tree: ast.AST) -> Iterator[tuple[str, str | None]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)


def _repeated(names: Iterable[str]) -> str:
    counts = {name: count for name, count in Counter(names).items() if count > 1}
    said = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    return f"{len(counts)}" + (f" ({said})" if counts else "")


def _lines(node: ast.stmt) -> int:
    """Return the lines of a function without its docstring and decorators."""
    docstring = node.body[0] if ast.get_docstring(node) is not None else None
    said = docstring.end_lineno - docstring.lineno + 1 if docstring else 0
    return node.end_lineno - node.lineno + 1 - said


def _length(source: str) -> int:
    return len(source.splitlines())


def _quantiles(things: Iterable[Any], measure: Callable[[Any], int]) -> str:
    sizes = sorted(measure(thing) for thing in things)
    return "/".join(str(sizes[min(int(s * len(sizes)), len(sizes) - 1)]) for s in SHARES)


def main() -> None:
    """Print a table with a column for each tree."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trees", nargs="*", type=Path, default=[HERE], help="checkouts (this one)")
    parser.add_argument("--chain", action="store_true", help="print the longest chain too")
    options = parser.parse_args()
    houses = {tree.resolve().name: House(tree) for tree in options.trees}
    print("| | " + " | ".join(houses) + " |\n|---" + "|---" * len(houses) + "|")
    for lines in zip(*(house.rows() for house in houses.values()), strict=True):
        print(f"| {lines[0][0]} | " + " | ".join(value for _, value in lines) + " |")
    if options.chain:
        for name, house in houses.items():
            chain = longest_chain(house.edges)
            stops = [n[0] if len(n) == 1 else f"a circle of {len(n)}" for n in chain]
            print(f"\n{name}: " + " > ".join(stops))


if __name__ == "__main__":
    main()
