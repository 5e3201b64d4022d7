"""How large the product is, by package: `python experiments/checks/size.py [--opened] [ROOT]`.

Lines are those of Python, stubs included; tokens are those of `tokenize` without comments,
docstrings and line ends. Commands and options are those of the command line, fields those of both
YAML files. `--opened` counts the modules that a few commands open (`sys.setprofile`).
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import sys
import tokenize
from collections import Counter, defaultdict
from pathlib import Path

PACKAGES = {
    "mixopt": "mixopt",
    "mixopt_proxies": "proxies/mixopt_proxies",
    "mixopt_regressors": "regressors/mixopt_regressors",
}
SKIPPED = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
PROBE = """
import sys, threading
opened = set()
def seen(frame, event, arg):
    path = frame.f_code.co_filename
    if event == "call" and path.startswith({root!r}) and "/.venv/" not in path:
        if frame.f_code.co_name not in ("<module>", "__getattr__"):
            opened.add(path)
{before}
sys.setprofile(seen); threading.setprofile(seen)
try:
    {command}
except SystemExit:
    pass
sys.setprofile(None)
print(len(opened), file=sys.stderr)
"""


def main() -> None:
    """Print the table, and the counts of opened modules if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).parents[2])
    parser.add_argument("--opened", metavar="CONFIG", help="an experiment whose run is in RUN")
    parser.add_argument("--run", type=Path, help="a finished run directory, for `propose`")
    options = parser.parse_args()
    files = modules(options.root)
    rooms = defaultdict(Counter)
    for name, path in files.items():
        rooms[room(name)].update(lines=lines(path), tokens=tokens(path), modules=1)
    for stub in stubs(options.root):
        rooms[room(stub[0])].update(lines=lines(stub[1]))
    print(f"{'package':34}{'modules':>8}{'lines':>9}{'tokens':>9}")
    for name, count in [*sorted(rooms.items()), ("all", sum(rooms.values(), Counter()))]:
        print(f"{name:34}{count['modules']:8}{count['lines']:9,}{count['tokens']:9,}")
    single, total = importers(files)
    print(f"imported by exactly one module: {single} of {total} ({single / total:.0%})")
    pages = (options.root / "mixopt").rglob("*")
    script = sum(lines(path) for path in pages if path.suffix in {".js", ".css"})
    print(f"JavaScript and CSS: {script:,}")
    if options.opened:
        print_opened(options.root, options.opened, options.run)


def modules(root: Path) -> dict[str, Path]:
    """Return every module of the three packages by its dotted name."""
    paths = {}
    for package, folder in PACKAGES.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root / folder).with_suffix("").parts
            paths[".".join([package, *parts]).removesuffix(".__init__")] = path
    return paths


def stubs(root: Path) -> list[tuple[str, Path]]:
    """Return the lists of public names, by package."""
    return [
        (".".join([package, *path.relative_to(root / folder).parent.parts, "__init__"]), path)
        for package, folder in PACKAGES.items()
        for path in (root / folder).rglob("*.pyi")
    ]


def room(name: str) -> str:
    """Return the package of a module, two levels deep."""
    parts = name.split(".")
    return ".".join(parts[:2]) if len(parts) > 1 else parts[0]


def lines(path: Path) -> int:
    """Count lines."""
    return len(path.read_text(encoding="utf-8").splitlines())


def tokens(path: Path) -> int:
    """Count tokens that are code."""
    text = path.read_text(encoding="utf-8")
    docs = {
        node.body[0].lineno
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and ast.get_docstring(node) is not None
    }
    return sum(
        one.type not in SKIPPED and not (one.type == tokenize.STRING and one.start[0] in docs)
        for one in tokenize.generate_tokens(io.StringIO(text).readline)
    )


def importers(files: dict[str, Path]) -> tuple[int, int]:
    """Count the modules that exactly one other imports, directly or through a face, and all."""
    home = {}  # a name that a face hands on, to the module that defines it
    for name, path in files.items():
        stub = path.with_suffix(".pyi")
        if path.name == "__init__.py" and stub.exists():
            for node in ast.walk(ast.parse(stub.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.module:
                    home.update({(name, a.name): f"{name}.{node.module}" for a in node.names})
    users = defaultdict(set)
    for name, path in files.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for target in targets(node, home):
                if target in files and target != name:
                    users[target].add(name)
    plain = [name for name, path in files.items() if path.name != "__init__.py"]
    return sum(len(users[name]) == 1 for name in plain), len(plain)


def targets(node: ast.AST, home: dict[tuple[str, str], str]) -> set[str]:
    """Return the modules that an import statement names."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if not isinstance(node, ast.ImportFrom) or not node.module:
        return set()
    named = {(node.module, alias.name) for alias in node.names}
    return {node.module} | {home.get(one, ".".join(one)) for one in named}


def print_opened(root: Path, config: str, run: Path | None) -> None:
    """Print how many of our modules each of a few commands runs a function of."""
    cli = "from mixopt.__main__ import main; sys.argv = ['mixopt', *{}]; main()"
    cases = {"check": ("", cli.format(["check", config]))}
    if run is not None:
        cases["propose"] = ("", cli.format(["propose", str(run)]))
    before = (
        "from mixopt import MixtureSampler\n"
        "sampler = MixtureSampler({'a': 9, 'b': 9}, {'a': .5, 'b': .5}, batch_size=4)"
    )
    cases["next(iter(sampler))"] = (before, "next(iter(sampler))")
    for name, (first, command) in cases.items():
        code = PROBE.format(root=str(root.resolve()), before=first, command=command)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        print(f"modules that {name} opens: {done.stderr.strip().splitlines()[-1]}")


if __name__ == "__main__":
    main()
