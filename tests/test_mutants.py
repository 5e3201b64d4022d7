"""The mutants that `make mutants` tries are what it says they are: one changed line each."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = '''
"""At most 3 domains, or more."""
LIMIT = 7
if TYPE_CHECKING:
    from x import y

def share(weights: "list[int] | None" = None, *, whole: bool = True) -> int:
    """Return 1 + 1."""
    assert len(weights) > 0
    if not weights or len(weights) > 3:
        raise ValueError(f"at most {LIMIT + 1}")
    print(min(weights), end="")
    return sum(w for w in weights if w > 0)  # never 1 < 2
'''


@pytest.fixture(scope="module")
def mutations():
    """The script, from its folder."""
    sys.path.insert(0, str(ROOT / "experiments" / "checks"))
    try:
        import mutations
    finally:
        sys.path.pop(0)
    return mutations


def changed(source: str, mutant: str) -> list[tuple[str, str]]:
    """Return the lines that differ."""
    lines, others = source.splitlines(), mutant.splitlines()
    assert len(lines) == len(others)
    return [(a, b) for a, b in zip(lines, others, strict=True) if a != b]


def test_every_mutant_changes_one_line_and_means_something_else(mutations):
    path = ROOT / "mixopt" / "sampling" / "order" / "shares.py"
    for source in (SOURCE, path.read_text(encoding="utf-8")):
        original = ast.dump(ast.parse(source))
        for mutation in mutations.mutations(source):
            mutant = mutation.apply(source)
            assert changed(source, mutant) == [(mutation.before, mutation.after)]
            assert ast.dump(ast.parse(mutant)) != original


def test_nothing_is_changed_that_no_test_could_see(mutations):
    found = {(m.line, m.kind) for m in mutations.mutations(SOURCE)}
    assert found == {
        (7, "True flipped"),
        (10, "not dropped"),
        (10, "or -> and"),
        (10, "> -> >="),
        (10, "integer + 1"),
        (10, "integer - 1"),
        (10, "negated condition"),
        (12, "statement dropped"),
        (12, "min -> max"),
        (12, 'end="" dropped'),
        (13, "return None"),
        (13, "sum -> max"),
        (13, "> -> >="),
        (13, "integer + 1"),
        (13, "integer - 1"),
        (13, "negated condition"),
    }


def test_a_sample_has_one_mutant_a_line_and_follows_its_seed(mutations):
    files = list((ROOT / "mixopt" / "sampling" / "order").glob("*.py"))
    first, again = (mutations.sampled(files, 30, seed=5) for _ in range(2))
    assert first == again != mutations.sampled(files, 30, seed=6)
    assert len({(path, mutation.line) for path, mutation in first}) == 30
