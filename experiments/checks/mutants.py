"""Which faults do the default tests notice? Seeded mutants, killed or survived.

    OMP_NUM_THREADS=1 python experiments/checks/mutants.py --out FOLDER [--tree DIR]
        [--mutants 200] [--seed 0] [--json]

FOLDER gets a copy of the tree, a map of the lines that each passing test runs (coverage contexts,
recorded once) and a line for each mutant. A mutant is judged by the tests that run its line, those
of its room and quick ones first, at most `--seconds` of them; where none does, by those of its
room, whose workers may run it. A second call goes on where the first one was stopped. `--list`
prints the mutants and runs nothing.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import json
import os
import random
import resource
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

PACKAGES = ("mixopt", "proxies/mixopt_proxies", "regressors/mixopt_regressors")
LEFT_OUT = (".git", ".venv", ".tools", "runs", "dist", "__pycache__", ".*_cache", ".hypothesis")
COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
COMPUTED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult,
}  # fmt: skip
# Libraries that most tests import: loaded once, tests run in forks.
PRELOADED = ("lightgbm", "mlflow", "polars", "scipy.optimize", "torch", "transformers")
OPTIONS = ["-q", "-n", "0", "-p", "no:cacheprovider"]
OPTIONS += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of PRELOADED
ENDS = {0: "survived", 5: "not reached"}


class Mutant(NamedTuple):
    """One change: bytes of a file, what replaces them, and the lines whose tests judge it."""

    file: str
    line: int
    operator: str
    before: str
    after: str
    start: int
    lines: tuple[int, ...]  # empty: code that runs when the module is imported

    @property
    def name(self) -> str:
        """A unique name."""
        return (
            f"{self.file}:{self.line} {self.operator}: {self.before} -> {self.after} @{self.start}"
        )


def main() -> None:
    """Copy the tree, record coverage, run the mutants and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="where copy, map and results lie")
    parser.add_argument("--tree", type=Path, default=Path(__file__).parents[2])
    parser.add_argument("--mutants", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60, help="CPU time of a mutant's tests")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    out = options.out.resolve()
    if not (out / "tree").exists():
        ignored = shutil.ignore_patterns(*LEFT_OUT)
        shutil.copytree(options.tree, out / "unfinished", ignore=ignored, dirs_exist_ok=True)
        (out / "unfinished").rename(out / "tree")
    mutants = draw(out / "tree", options.mutants, options.seed)
    if options.list:
        print("\n".join(one.name for one in mutants))
        return
    for name in PRELOADED:
        importlib.import_module(name)
    if not (out / "recorded").exists():
        if run_forked(record, out) not in (0, 1):
            sys.exit("mutants: pytest did not come to its end; call it again to go on")
        (out / "recorded").touch()
    results = run(mutants, out, options.seconds)
    print(json.dumps(results, indent=1) if options.json else table(results))


def draw(tree: Path, count: int, seed: int) -> list[Mutant]:
    """Draw files in proportion to their lines, and a mutant of each without replacement."""
    left = {}
    for path in sorted(path for package in PACKAGES for path in (tree / package).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if options := list(candidates(ast.parse(source), source, str(path.relative_to(tree)))):
            left[path] = (source.count("\n"), options)
    chance, drawn = random.Random(seed), []
    while len(drawn) < count and left:
        path = chance.choices(list(left), [lines for lines, _ in left.values()])[0]
        options = left[path][1]
        drawn.append(options.pop(chance.randrange(len(options))))
        if not options:
            del left[path]
    return drawn


def candidates(module: ast.Module, source: str, file: str) -> Iterator[Mutant]:
    """Yield every mutant of a module, in the order of its code."""
    text = source.encode()
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node, statement, inside in places(module, module, inside=False):
        for old, operator, new in changes(node):
            start = starts[old.lineno - 1] + old.col_offset
            end = starts[old.end_lineno - 1] + old.end_col_offset
            after = ast.unparse(ast.fix_missing_locations(new))
            after = f"({after})" if isinstance(new, ast.expr) else after
            run = {statement.lineno, *range(old.lineno, old.end_lineno + 1)} if inside else ()
            before = text[start:end].decode()
            yield Mutant(file, old.lineno, operator, before, after, start, tuple(run))


def places(node: ast.AST, statement: ast.AST, *, inside: bool) -> Iterator[tuple]:
    """Yield nodes with their statement and whether a function has them; no hints, no f-strings."""
    yield node, statement, inside
    for field, value in ast.iter_fields(node):
        if field in {"annotation", "returns", "decorator_list"}:
            continue
        body = field == "body" and isinstance(node, (ast.FunctionDef, ast.Lambda))
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                nearest = child if isinstance(child, ast.stmt) else statement
                yield from places(child, nearest, inside=inside or body)


def changes(node: ast.AST) -> Iterator[tuple[ast.AST, str, ast.AST]]:
    """Yield what is replaced, the operator and the replacement, for each operator of a node."""
    changed = copy.copy(node)
    match node:
        case ast.Compare(ops=[kind]) if type(kind) in COMPARED:
            changed.ops = [COMPARED[type(kind)]()]
            yield node, "comparison", changed
        case ast.Constant(value=bool(value)):
            yield node, "boolean", ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield node, "constant", ast.Constant(value + 1)
        case ast.BinOp(op=kind) | ast.AugAssign(op=kind) if type(kind) in COMPUTED:
            changed.op = COMPUTED[type(kind)]()
            yield node, "arithmetic", changed
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield node, "return", ast.Return(ast.Constant(None))
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            if ast.unparse(test) != "TYPE_CHECKING":
                yield test, "condition", ast.UnaryOp(ast.Not(), changed.test)


class Recorder:
    """A plug-in of pytest: a coverage context for each test, and the time of those that pass."""

    def __init__(self, out: Path) -> None:
        import coverage

        self._notes, self._test, self._passed = out / "tests.jsonl", "", False
        self.done = {note["test"] for note in lines(self._notes)}
        source = [str(Path(package).resolve()) for package in PACKAGES]
        self.coverage = coverage.Coverage(data_file=str(out / "map.coverage"), source=source)
        self.coverage.load()
        self.coverage.start()

    def pytest_collection_modifyitems(self, items: list) -> None:
        """Skip tests that an earlier call recorded."""
        items[:] = [item for item in items if item.nodeid not in self.done]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Open the test's context."""
        self.coverage.switch_context(nodeid)
        self._before, self._passed = sum(os.times()[:4]), True

    def pytest_runtest_logreport(self, report) -> None:
        """Check the reports of set-up, call and tear-down."""
        self._passed &= report.passed

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Note a test that passed, with its CPU time: the machine may have other work."""
        self.coverage.switch_context("")
        if self._passed:
            seconds = sum(os.times()[:4]) - self._before
            note(self._notes, {"test": nodeid, "seconds": seconds})


def record(out: Path) -> None:
    """Run the default tests with the recorder, and exit with pytest's code."""
    import pytest

    enter(out / "tree")
    recorder = Recorder(out)
    code = pytest.main(OPTIONS, plugins=[recorder])
    recorder.coverage.stop()
    recorder.coverage.save()
    sys.exit(int(code))


def run(mutants: list[Mutant], out: Path, most: float) -> list[dict]:
    """Run the mutants that have no result yet, and return the results of all."""
    import coverage

    data = coverage.CoverageData(str(out / "map.coverage"))
    data.read()
    seconds = {line["test"]: line["seconds"] for line in lines(out / "tests.jsonl")}
    done = {line["mutant"]: line for line in lines(out / "results.jsonl")}
    for mutant in mutants:
        if mutant.name in done:
            continue
        by_line = data.contexts_by_lineno(str(out / "tree" / mutant.file))
        reached = {test for line in mutant.lines or by_line for test in by_line.get(line, ())}
        reached &= set(seconds)
        parts = mutant.file.split("/")
        room = f"tests/{parts[1] if parts[0] == 'mixopt' else parts[0]}/"
        total, chosen = 0.0, []
        tests = reached or {test for test in seconds if test.startswith(room)}
        for test in sorted(tests, key=lambda name: (room not in name, seconds[name])):
            if not chosen or total + seconds[test] <= most:
                total += seconds[test]
                chosen.append(test)
        status = judge(mutant, chosen, out, 30 + 5 * total) if chosen else "survived"
        status = "not reached" if status == "survived" and not reached else status
        done[mutant.name] = {"mutant": mutant.name, "status": status, "tests": len(chosen)}
        note(out / "results.jsonl", done[mutant.name])
    return [done[mutant.name] for mutant in mutants]


def judge(mutant: Mutant, tests: list[str], out: Path, seconds: float) -> str:
    """Change the copy, run the tests until one fails, and change the copy back."""
    path = out / "tree" / mutant.file
    source = path.read_bytes()
    end = mutant.start + len(mutant.before.encode())
    try:
        path.write_bytes(source[: mutant.start] + mutant.after.encode() + source[end:])
        code = run_forked(run_tests, out, tests, seconds, patience=10 * seconds)
    finally:
        path.write_bytes(source)
    return "killed (time)" if code is None else ENDS.get(code, "killed")


def run_tests(out: Path, tests: list[str], seconds: float) -> None:
    """Run tests quietly for at most so many seconds of CPU time, and exit with pytest's code."""
    import pytest

    enter(out / "tree")
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    sys.exit(int(pytest.main([*OPTIONS, "-x", "--hypothesis-seed=0", *tests])))


def run_forked(work: Callable[..., None], *given: Any, patience: float | None = None) -> int | None:
    """Run a function in a fork, which has the loaded libraries; None: killed for its time."""
    fork = get_context("fork").Process(target=work, args=given)
    fork.start()
    fork.join(patience)
    if fork.is_alive():
        fork.kill()
        fork.join()
        return None
    return fork.exitcode


def enter(tree: Path) -> None:
    """Make this process, and those that it starts, import the copy."""
    paths = [str(tree), *(str((tree / package).parent) for package in PACKAGES[1:])]
    os.environ.update(PYTHONPATH=os.pathsep.join(paths), PYTHONDONTWRITEBYTECODE="1")
    sys.path[:0] = paths
    os.chdir(tree)


def table(results: list[dict]) -> str:
    """Return counts by package, and the mutants that no test killed."""
    counts: dict[str, Counter] = {}
    for result in results:
        package = result["mutant"].split("/")[:2]
        for row in ("/".join(package), "all"):
            counts.setdefault(row, Counter())[result["status"].split()[0]] += 1
    rows = [f"{'package':34}{'killed':>8}{'survived':>10}{'not reached':>13}"]
    for row, count in sorted(counts.items(), key=lambda item: (item[0] == "all", item[0])):
        rows.append(f"{row:34}{count['killed']:8}{count['survived']:10}{count['not']:13}")
    left = [result for result in results if not result["status"].startswith("killed")]
    share = 1 - len(left) / max(1, len(results))
    return "\n".join(
        [*rows, f"killed: {share:.0%}", *(f"{r['status']}: {r['mutant']}" for r in left)]
    )


def lines(path: Path) -> list[dict]:
    """Read a file of JSON lines; return nothing if it does not exist."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def note(path: Path, line: dict) -> None:
    """Append a line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
