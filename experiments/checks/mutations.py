"""Every change of one line that could hide an untested behaviour, found in the syntax tree.

A mutation flips a comparison or a condition, swaps an arithmetic or logical operator, moves an
integer by one, swaps a function for its opposite, drops a keyword argument or a statement, or
returns None. Left out is what no test could see: docstrings, annotations, decorators,
`TYPE_CHECKING` blocks, assertions, constants that only messages use, and arguments that guard or
spell out a default.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

OPERATORS = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"),
    ast.Pow: ("**", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
}
OPPOSITES = [
    ("min", "max"),
    ("minimum", "maximum"),
    ("argmin", "argmax"),
    ("any", "all"),
    ("floor", "ceil"),
    ("zeros", "ones"),
    ("cumsum", "cumprod"),
    ("sum", "prod"),
    ("mean", "sum"),
    ("startswith", "endswith"),
]
SWAPS = {a: b for pair in OPPOSITES for a, b in (pair, pair[::-1])} | {"sum": "max"}
UNSEEN_ARGUMENTS = {"strict", "encoding", "allow_pickle", "stacklevel", "slots", "repr", "copy"}


@dataclass(frozen=True)
class Mutation:
    """One line of one file, changed.

    Attributes:
        line: The number of the line, from 1.
        before: The line as it is.
        after: The line as it becomes.
        kind: What was done, in a few words.
        inside: Whether the line runs when a function is called, and not at import alone.
    """

    line: int
    before: str
    after: str
    kind: str
    inside: bool

    def apply(self, source: str) -> str:
        """Return the source with this line changed."""
        lines = source.splitlines(keepends=True)
        lines[self.line - 1] = lines[self.line - 1].replace(self.before, self.after)
        return "".join(lines)


class Edit(NamedTuple):
    """Bytes of a source to put others in the place of, none of which is the end of a line."""

    start: int
    end: int
    text: str
    kind: str

    def apply(self, source: bytes) -> str:
        """Return the changed source."""
        return (source[: self.start] + self.text.encode() + source[self.end :]).decode()


def sampled(files: list[Path], count: int, seed: int) -> list[tuple[Path, Mutation]]:
    """Draw lines of the files at random, and one mutation of each.

    Args:
        files: Sources of one package.
        count: Mutations wanted; fewer where there are fewer lines.
        seed: The same seed, sources and count give the same sample.
    """
    draw = random.Random(seed)
    lines: dict[tuple[Path, int], list[Mutation]] = {}
    for path in sorted(files):
        for mutation in mutations(path.read_text(encoding="utf-8")):
            lines.setdefault((path, mutation.line), []).append(mutation)
    chosen = draw.sample(sorted(lines), min(count, len(lines)))
    return [(path, draw.choice(lines[path, line])) for path, line in chosen]


def mutations(source: str) -> list[Mutation]:
    """Return every mutation of a source that still compiles."""
    tree, text = ast.parse(source), _Text(source)
    lines = source.splitlines()
    found = []
    for node, inside in _nodes(tree, _message_constants(tree)):
        for edit in _edits(node, text):
            changed = edit.apply(text.bytes)
            after = changed.splitlines()
            if len(after) == len(lines) and _compiles(changed):
                at = text.bytes[: edit.start].count(b"\n")
                found.append(Mutation(at + 1, lines[at], after[at], edit.kind, inside))
    return found


def _compiles(source: str) -> bool:
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def _nodes(tree: ast.Module, hidden: set[str]) -> Iterator[tuple[ast.AST, bool]]:
    """Yield what may be changed, and whether it is in the body of a function."""
    waiting: list[tuple[ast.AST, bool]] = [(node, False) for node in tree.body]
    while waiting:
        node, inside = waiting.pop()
        if _is_out_of_reach(node, hidden):
            continue
        yield node, inside
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += [(n, inside) for n in (*node.args.defaults, *node.args.kw_defaults) if n]
            waiting += [(n, True) for n in node.body]
        elif isinstance(node, ast.ClassDef):
            waiting += [(n, inside) for n in node.body]
        elif isinstance(node, ast.Lambda):
            waiting.append((node.body, True))
        elif isinstance(node, ast.AnnAssign):
            waiting += [(node.value, inside)] if node.value else []
        else:
            waiting += [(n, inside) for n in ast.iter_child_nodes(node)]


def _is_out_of_reach(node: ast.AST, hidden: set[str]) -> bool:
    """Return whether no test of behaviour could see a change of this."""
    if isinstance(node, ast.Assert | ast.JoinedStr):  # the tree misplaces parts of an f-string
        return True
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test) or "__name__" in ast.unparse(node.test)
    if isinstance(node, ast.keyword):
        return node.arg in UNSEEN_ARGUMENTS
    if isinstance(node, ast.Assign):
        names = {target.id for target in node.targets if isinstance(target, ast.Name)}
        return bool(names & (hidden | {"__all__"}))
    return False


def _message_constants(tree: ast.Module) -> set[str]:
    """Return the module's constants that are used in messages alone."""
    messages = [n for n in ast.walk(tree) if isinstance(n, ast.Raise | ast.JoinedStr)]
    said = {id(n) for m in messages for n in ast.walk(m)}
    uses = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
    elsewhere = {n.id for n in uses if id(n) not in said}
    return {n.id for n in uses if n.id.isupper()} - elsewhere


class _Text:
    """A source as bytes, and where a node of its tree is in it."""

    def __init__(self, source: str) -> None:
        self.bytes = source.encode()
        self.starts = [0]
        for line in self.bytes.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def first(self, node: Any) -> int:
        """Return the byte at which a node starts."""
        return self.starts[node.lineno - 1] + int(node.col_offset)

    def last(self, node: Any) -> int:
        """Return the byte after a node."""
        return self.starts[node.end_lineno - 1] + int(node.end_col_offset)

    def of(self, node: ast.AST) -> str:
        """Return the text of a node."""
        return self.bytes[self.first(node) : self.last(node)].decode()

    def whole(self, node: ast.AST, text: str, kind: str) -> Iterator[Edit]:
        """Put other text in place of a node that is on one line."""
        if node.lineno == node.end_lineno:  # type: ignore[attr-defined]
            yield Edit(self.first(node), self.last(node), text, kind)

    def operator(self, left: ast.AST, right: ast.AST, operator: ast.AST) -> Iterator[Edit]:
        """Put another operator between two nodes."""
        if type(operator) not in OPERATORS:
            return
        old, new = OPERATORS[type(operator)]
        start = self.last(left)
        pattern = rb"\s+".join(re.escape(word) for word in old.encode().split())
        text = re.sub(rb"#.*", _blank, self.bytes[start : self.first(right)])
        match = re.search(pattern, text)
        if match:
            yield Edit(start + match.start(), start + match.end(), new, f"{old} -> {new}")


def _blank(match: re.Match[bytes]) -> bytes:
    """Return spaces in place of a comment, so that no operator is found in it."""
    return b" " * len(match.group())


def _edits(node: ast.AST, text: _Text) -> Iterator[Edit]:
    """Yield all that can be done to one node."""
    yield from _of_operators(node, text)
    yield from _of_constants(node, text)
    yield from _of_conditions(node, text)
    yield from _of_statements(node, text)
    yield from _of_calls(node, text)


def _of_operators(node: ast.AST, text: _Text) -> Iterator[Edit]:
    """Yield other operators: of comparison, of arithmetic, of logic."""
    match node:
        case ast.Compare():
            parts = [node.left, *node.comparators]
            for left, operator, right in zip(parts, node.ops, parts[1:], strict=False):
                yield from text.operator(left, right, operator)
        case ast.BinOp():
            yield from text.operator(node.left, node.right, node.op)
        case ast.AugAssign():
            yield from text.operator(node.target, node.value, node.op)
        case ast.BoolOp():
            for left, right in zip(node.values, node.values[1:], strict=False):
                yield from text.operator(left, right, node.op)
        case ast.UnaryOp(op=ast.Not()):
            yield Edit(text.first(node), text.first(node.operand), "", "not dropped")


def _of_constants(node: ast.AST, text: _Text) -> Iterator[Edit]:
    """Yield the neighbours of an integer, and the opposite of a boolean."""
    match node:
        case ast.Constant(value=bool()):
            yield from text.whole(node, str(not node.value), f"{node.value} flipped")
        case ast.Constant(value=int()):
            yield from text.whole(node, str(node.value + 1), "integer + 1")
            yield from text.whole(node, str(node.value - 1), "integer - 1")


def _of_conditions(node: ast.AST, text: _Text) -> Iterator[Edit]:
    """Yield each condition negated."""
    tests: list[ast.expr] = []
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        tests = [node.test]
    elif isinstance(node, ast.comprehension):
        tests = node.ifs
    for test in tests:
        yield from text.whole(test, f"not ({text.of(test)})", "negated condition")


def _of_statements(node: ast.AST, text: _Text) -> Iterator[Edit]:
    """Yield a statement without its effect."""
    match node:
        case ast.Return(value=ast.expr()) if text.of(node) != "return None":
            yield from text.whole(node, "return None", "return None")
        case ast.Expr(value=ast.Call()):
            yield from text.whole(node, "pass", "statement dropped")
        case ast.Break():
            yield from text.whole(node, "continue", "break -> continue")
        case ast.Continue():
            yield from text.whole(node, "break", "continue -> break")


def _of_calls(node: ast.AST, text: _Text) -> Iterator[Edit]:
    """Yield a call of the opposite function, and a call without one keyword argument."""
    if isinstance(node, ast.keyword) and node.arg and node.lineno == node.end_lineno:
        yield _without(node, text)
    elif isinstance(node, ast.Call):
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if name in SWAPS:
            end = text.last(node.func)
            yield Edit(end - len(name), end, SWAPS[name], f"{name} -> {SWAPS[name]}")


def _without(node: ast.keyword, text: _Text) -> Edit:
    """Drop a keyword argument and the comma at its side."""
    start, end, kind = text.first(node), text.last(node), f"{text.of(node)} dropped"
    after = re.match(rb" *,[ ]*", text.bytes[end:])
    if after:
        return Edit(start, end + after.end(), "", kind)
    before = re.search(rb",[ ]*$", text.bytes[:start])
    return Edit(before.start() if before else start, end, "", kind)
