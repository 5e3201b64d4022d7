"""Count the idioms that pack several thoughts into one statement.

    python experiments/checks/idioms.py [--files N]

Counts are for each 10,000 tokens of the three packages, without comments and docstrings, so that no
formatter changes them. The script fails where one is above its limit. `--files N` lists the N files
with the most of them.

    tuple assignments         a, b = x, y
    conditional expressions   x if c else y
    comprehensions            one for each bracket
    stars                     *names in a call, a display or a target
    nested                    a conditional expression or comprehension inside another
    late constants            an upper-case name bound below the first def or class (absolute)
"""

from __future__ import annotations

import argparse
import ast
import io
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("mixopt", "proxies/mixopt_proxies", "regressors/mixopt_regressors")
LIMITS = {
    "tuple assignments": 4.0,
    "conditional expressions": 16.0,
    "comprehensions": 42.0,
    "stars": 12.0,
    "nested": 3.0,
}
MAX_LATE_CONSTANTS = 20
LATE = "late constants"
TOKENS = "tokens"
UNCOUNTED = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def main() -> None:
    """Print the counts, and fail if one is above its limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=0, help="list as many files")
    options = parser.parse_args()
    by_file = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            by_file[path] = counted(path.read_text(encoding="utf-8"))
    total = sum(by_file.values(), Counter())
    failed = False
    for idiom, limit in LIMITS.items():
        rate = per_10_000(total, idiom)
        print(f"{idiom:26}{rate:6.1f}   at most {limit:g} for each 10,000 tokens")
        failed = failed or rate > limit
    print(f"{LATE:26}{total[LATE]:6}   at most {MAX_LATE_CONSTANTS}")
    failed = failed or total[LATE] > MAX_LATE_CONSTANTS
    most = sorted(by_file, key=lambda path: -excess(by_file[path]))
    for path in most[: options.files]:
        counts = by_file[path]
        rates = ", ".join(f"{per_10_000(counts, idiom):.0f} {idiom}" for idiom in LIMITS)
        print(f"{path.relative_to(ROOT)}: {rates}, {counts[LATE]} {LATE}")
    sys.exit("too many: say one thing in one statement" if failed else 0)


def per_10_000(counts: Counter[str], idiom: str) -> float:
    """Return how often an idiom stands in 10,000 tokens."""
    return 1e4 * counts[idiom] / max(counts[TOKENS], 1)


def excess(counts: Counter[str]) -> float:
    """Return by how many idioms a file is above the limits."""
    over = [counts[idiom] - limit * counts[TOKENS] / 1e4 for idiom, limit in LIMITS.items()]
    return sum(max(count, 0.0) for count in over) + counts[LATE]


def counted(text: str) -> Counter[str]:
    """Count the idioms and the tokens of a module."""
    tree = ast.parse(text)
    counts = Counter({TOKENS: token_count(text, docstring_lines(tree)), LATE: late(tree)})
    for node in ast.walk(tree):
        counts.update(idioms_of(node))
    return counts


def idioms_of(node: ast.AST) -> Iterator[str]:
    """Yield the idioms that begin at a node."""
    if isinstance(node, ast.Assign):
        sides = (node.targets[0], node.value)
        if all(isinstance(side, ast.Tuple) for side in sides):
            yield "tuple assignments"
    if isinstance(node, ast.Starred):
        yield "stars"
    if isinstance(node, ast.IfExp):
        yield "conditional expressions"
    if isinstance(node, COMPREHENSIONS):
        yield "comprehensions"
    if is_packed(node) and any(is_packed(inner) for inner in ast.walk(node) if inner is not node):
        yield "nested"


def is_packed(node: ast.AST) -> bool:
    """Return whether a node is a conditional expression or a comprehension."""
    return isinstance(node, (ast.IfExp, *COMPREHENSIONS))


def late(tree: ast.Module) -> int:
    """Count the constants below the first def or class."""
    count = 0
    is_below = False
    for node in tree.body:
        is_below = is_below or isinstance(node, DEFINITIONS)
        target: ast.AST | None = None
        if isinstance(node, ast.Assign):
            target = node.targets[0]
        elif isinstance(node, ast.AnnAssign):
            target = node.target
        if is_below and isinstance(target, ast.Name) and target.id.strip("_").isupper():
            count += 1
    return count


def docstring_lines(tree: ast.Module) -> set[int]:
    """Return the first line of each docstring."""
    lines = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, *DEFINITIONS)) and ast.get_docstring(node) is not None:
            lines.add(node.body[0].lineno)
    return lines


def token_count(text: str, docstrings: set[int]) -> int:
    """Count the tokens that are neither comments nor docstrings."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    counted_tokens = [token for token in tokens if token.type not in UNCOUNTED]
    return sum(
        token.type != tokenize.STRING or token.start[0] not in docstrings
        for token in counted_tokens
    )


if __name__ == "__main__":
    main()
