"""Change one line at a time and see whether a test of its package fails.

    python experiments/checks/mutants.py [--package fitting] [--count 30] [--seed 0] [--jobs 2]

Draws lines of each package at random, applies one mutation to each in a copy of the working
tree, and runs the tests of that package that run the line, the quickest first; all tests of the
package where none is known to, because another process runs it or it is run at import. A mutant
that no test notices is shown as a difference: a behaviour that is not tested, or a line that
could be simpler. Takes minutes a package.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import coverage
from mutations import Mutation, sampled

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = [
    "sampling",
    "constraints",
    "trials",
    "fitting",
    "proposals",
    "online",
    "routing",
    "tracking",
]
LEAST_SECONDS, TIMES_LONGER = 60, 5
PASSED, FAILED, INTERRUPTED = 0, 1, 2  # of pytest: an import that fails interrupts it


@dataclass(frozen=True)
class Outcome:
    """What became of one mutant: killed, timeout, survived, or no test."""

    file: str
    mutation: Mutation
    outcome: str
    tests: int
    seconds: float

    def difference(self) -> str:
        """Return the change in the form of a patch."""
        change = self.mutation
        head = f"{self.file}:{change.line}  {change.kind}  ({self.outcome}, {self.tests} tests)"
        return f"{head}\n-{change.before}\n+{change.after}\n"


class Tree:
    """A copy of the working tree, whose modules are the ones that its tests import."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        listed = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"]
        for name in subprocess.check_output(listed, text=True).splitlines():
            if (ROOT / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.folder / name)
        sources = [self.folder, self.folder / "proxies", self.folder / "regressors"]
        paths = [*sources, self.folder / "experiments" / "checks"]
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "OMP_NUM_THREADS": "1",
            "MUTANTS_SECONDS": str(self.folder / "seconds.json"),
        }
        self._stamp = 10**9
        self._check_that_it_is_imported()

    def _check_that_it_is_imported(self) -> None:
        names = "mixopt, mixopt_proxies, mixopt_regressors"
        code = f"import {names}\nfor m in ({names}): print(m.__file__)"
        command = [sys.executable, "-c", code]
        printed = subprocess.check_output(command, text=True, cwd=self.folder, env=self.environment)
        for path in printed.split():
            if self.folder not in Path(path).resolve().parents:
                raise SystemExit(f"{path} is imported instead of the copy in {self.folder}")

    def write(self, name: str, source: str) -> None:
        """Write a module, at a time of its own: Python tells a stale cache by whole seconds."""
        self._stamp += 10
        path = self.folder / name
        path.write_text(source, encoding="utf-8")
        os.utime(path, (self._stamp, self._stamp))

    def run(self, command: list[str], limit: float | None = None) -> tuple[int | None, str]:
        """Run a command; return its exit code, None where it took too long, and what it said."""
        log = self.folder / "output.txt"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
            try:
                code: int | None = process.wait(limit)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _end(process)
        return code, log.read_text(encoding="utf-8", errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let the tests clean up after themselves, then end whatever is left of their group."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Tests:
    """The tests of one package: where they are, which lines each runs, how long each takes."""

    def __init__(self, tree: Tree, package: str, more: list[str]) -> None:
        self.places = [f"tests/{package}", *more]
        measure = ["-m", "coverage", "run", f"--include={tree.folder}/mixopt/{package}/*"]
        pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "which_tests"]
        code, said = tree.run([*measure, *pytest, *self.places])
        if code != PASSED:
            raise SystemExit(f"{package}: the tests fail on the code as it is\n{said[-4000:]}")
        seconds = Path(tree.environment["MUTANTS_SECONDS"]).read_text(encoding="utf-8")
        self.seconds: dict[str, float] = json.loads(seconds)
        self._data = coverage.CoverageData(str(tree.folder / ".coverage"))
        self._data.read()
        self._folder = tree.folder

    def of(self, name: str, mutation: Mutation) -> list[str]:
        """Return the tests that run a line, the quickest first; none where that is not known."""
        by_line = self._data.contexts_by_lineno(str(self._folder / name))
        contexts = set(by_line.get(mutation.line, []))
        if not mutation.inside or "" in contexts:
            return []
        chosen = [t for t in self.seconds if t in contexts or t.partition("::")[0] in contexts]
        return sorted(chosen, key=self.seconds.__getitem__)

    def limit(self, chosen: list[str]) -> float:
        """Return the seconds after which a run of these tests hangs, all tests if none."""
        usual = sum(self.seconds[test] for test in chosen or self.seconds)
        return max(LEAST_SECONDS, TIMES_LONGER * usual)


def try_mutant(tree: Tree, tests: Tests, name: str, mutation: Mutation, thorough: bool) -> Outcome:
    """Apply one mutation to the copy, run the tests that could notice, and take it back."""
    source = (ROOT / name).read_text(encoding="utf-8")
    chosen = tests.of(name, mutation)
    start = time.monotonic()
    tree.write(name, mutation.apply(source))
    try:
        outcome = _result(tree, tests, chosen)
        if outcome == "survived" and chosen and thorough:
            outcome = _result(tree, tests, [])
    finally:
        tree.write(name, source)
    if outcome == "survived" and not chosen and mutation.inside:
        outcome = "no test"
    count = len(chosen or tests.seconds)
    return Outcome(name, mutation, outcome, count, time.monotonic() - start)


def _result(tree: Tree, tests: Tests, chosen: list[str]) -> str:
    """Return killed, timeout or survived; tests that cannot be found are tried all together."""
    pytest = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
    code, _ = tree.run([*pytest, *(chosen or tests.places)], tests.limit(chosen))
    if code is None:
        return "timeout"
    if code == PASSED:
        return "survived"
    if code in (FAILED, INTERRUPTED) or code < 0 or not chosen:
        return "killed"
    return _result(tree, tests, [])


def run_package(trees: list[Tree], package: str, options: argparse.Namespace) -> list[Outcome]:
    """Try a sample of mutants of one package, as many at a time as there are copies."""
    files = sorted((ROOT / "mixopt" / package).rglob("*.py"))
    chosen = sampled(files, options.count, options.seed)
    tests = Tests(trees[0], package, options.tests)
    free: queue.Queue[Tree] = queue.Queue()
    for tree in trees:
        free.put(tree)

    def one(item: tuple[Path, Mutation]) -> Outcome:
        tree = free.get()
        try:
            name = str(item[0].relative_to(ROOT))
            result = try_mutant(tree, tests, name, item[1], options.thorough)
        finally:
            free.put(tree)
        place = f"{result.file}:{result.mutation.line}"
        _say(f"{result.outcome:9} {result.seconds:5.0f} s  {place}  {result.mutation.kind}")
        return result

    with ThreadPoolExecutor(len(trees)) as pool:
        return list(pool.map(one, chosen))


def table(outcomes: dict[str, list[Outcome]]) -> str:
    """Return killed, survived, untested and the score of each package, in Markdown."""
    rows = ["| package | killed | survived | no test | score |", "|---|---|---|---|---|"]
    for package, results in outcomes.items():
        ends = [result.outcome for result in results]
        killed = ends.count("killed") + ends.count("timeout")
        share = f"{killed / max(len(ends), 1):.0%}"
        rest = f"{ends.count('survived')} | {ends.count('no test')}"
        rows.append(f"| {package} | {killed} of {len(ends)} | {rest} | {share} |")
    return "\n".join(rows)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parsed() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--package", action="append", help="a package of mixopt; may be repeated")
    parser.add_argument("--tests", action="append", default=[], help="more tests than its own")
    parser.add_argument("--count", type=int, default=30, help="mutants a package (30)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (0)")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time (2)")
    parser.add_argument("--json", type=Path, help="where to write all outcomes")
    parser.add_argument(
        "--thorough", action="store_true", help="try survivors on all tests of the package too"
    )
    return parser.parse_args()


def main() -> None:
    """Try the mutants of the packages that are asked for; print a table and the survivors."""
    options = parsed()
    outcomes: dict[str, list[Outcome]] = {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees = [Tree(Path(folder) / str(number)) for number in range(options.jobs)]
        for package in options.package or PACKAGES:
            _say(f"{package}:")
            outcomes[package] = run_package(trees, package, options)
    print(table(outcomes))
    alive = ("survived", "no test")
    for result in (r for results in outcomes.values() for r in results if r.outcome in alive):
        print(f"\n{result.difference()}", end="")
    if options.json:
        found = {name: [asdict(r) for r in results] for name, results in outcomes.items()}
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
