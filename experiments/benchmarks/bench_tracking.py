"""What logging takes of a training thread, and what MLflow's failures cost.

    python experiments/benchmarks/bench_tracking.py [QUESTION ...] [--calls 2000] [--metrics 20]
        [--processes 8] [--trials 100 1000 2000]

Five questions, a line of JSON each, all with real servers and processes:

log         the time of `RunLog.log` with `--metrics` metrics, median and 99th percentile, and of
            `mlflow.log_metrics` of the same to the same server, at its default settings and with
            `synchronous=False`; all four beside the limit of 0.5 ms
outage      a run whose server is killed for 60% of it: errors, points that are missing at its end,
            how long its end takes when the server is down; then all sent twice more: points added
processes   `--processes` processes that begin at once on a SQLite file that is not there
slow        a server that is stopped (SIGSTOP) in the middle: the same time of `log`, and of the end
sweep       CPU (user and system, of all processes) of `mixopt sweep` of a proxy that does nothing,
            tracked in a database of the run and untracked, and a table of them; MLflow's start is
            that of its import and of making an empty database
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixopt.tracking import RunLog, sync

if TYPE_CHECKING:
    from mixopt.trials import TrialResult

LIMIT_MS = 0.5
PAUSE = 0.002  # of a training step, so that the sender works in between


class Server:
    """An `mlflow server` on a database of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri, self.folder = f"http://127.0.0.1:{self.port}", folder
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        command += ["--artifacts-destination", str(self.folder / "served")]
        quiet = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("w") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=quiet, start_new_session=True
            )
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
                return
            time.sleep(0.2)

    def signal(self, number: int) -> None:
        """Send a signal to it and its workers."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """Kill it and its workers."""
        self.signal(signal.SIGKILL)
        self.process.wait()

    def points(self) -> tuple[int, int]:
        """Return how many points there are, and how many are different but for their times."""
        query = (
            "select count(*), count(distinct run_uuid || ' ' || key || ' ' || step) from metrics"
        )
        with contextlib.closing(sqlite3.connect(self.folder / "mlflow.db")) as database:
            found: tuple[int, int] = database.execute(query).fetchone()
        return found


@contextlib.contextmanager
def served() -> Iterator[tuple[Server, Path]]:
    """Give a server, and a folder."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        try:
            yield server, Path(folder)
        finally:
            with contextlib.suppress(ProcessLookupError):
                server.signal(signal.SIGCONT)
                server.kill()


def timed(call: Callable[[dict[str, float], int], Any], options: argparse.Namespace) -> list[float]:
    """Return the milliseconds of each call."""
    taken = []
    for step in range(options.calls):
        metrics = {f"loss/domain_{n}": step / (n + 1) for n in range(options.metrics)}
        began = time.perf_counter()
        call(metrics, step)
        taken.append(1e3 * (time.perf_counter() - began))
        time.sleep(PAUSE)
    return taken


def times(taken: list[float]) -> dict[str, float]:
    """Return median and 99th percentile, and the second as a share of the limit."""
    p99 = statistics.quantiles(taken, n=100)[98]
    return {
        "median_ms": round(statistics.median(taken), 4),
        "p99_ms": round(p99, 4),
        "p99_of_limit": round(p99 / LIMIT_MS, 3),
    }


def bench_log(options: argparse.Namespace) -> dict[str, Any]:
    """Time the call, beside MLflow's own."""
    import mlflow

    with served() as (server, folder):
        with RunLog(folder / "run", experiment="bench", uri=server.uri) as log:
            ours = timed(log.log, options)
        mlflow.set_tracking_uri(server.uri)
        few = argparse.Namespace(calls=max(options.calls // 10, 100), metrics=options.metrics)
        with mlflow.start_run():
            plain = timed(lambda metrics, step: mlflow.log_metrics(metrics, step=step), few)
            later = timed(
                lambda metrics, step: mlflow.log_metrics(metrics, step=step, synchronous=False), few
            )
            mlflow.flush_async_logging()
    return {
        "RunLog.log": times(ours),
        "mlflow.log_metrics": times(plain),
        "mlflow.log_metrics, synchronous=False": times(later),
        "median_ratio": round(statistics.median(plain) / statistics.median(ours), 1),
    }


def bench_outage(options: argparse.Namespace) -> dict[str, Any]:
    """Kill the server for 60% of a run, and count; once more with a server that stays away."""
    errors = 0
    with served() as (server, folder):
        log = RunLog(folder / "run", experiment="bench", uri=server.uri)
        for step in range(100):
            if step == 20:
                server.kill()
            if step == 80:
                server.start()
            try:
                log.log({f"m{n}": float(step) for n in range(options.metrics)}, step)
            except Exception:
                errors += 1
            time.sleep(0.2)
        log.close()
        first = server.points()
        added = []
        for _ in range(2):
            forget(folder / "run")
            sync(folder / "run", server.uri)
            added.append(server.points()[0] - first[0])
        server.kill()
        log = RunLog(folder / "away", experiment="bench", uri=server.uri)
        log.log({"m": 0.0}, 0)
        time.sleep(10)  # MLflow is imported, and the server known to be down
        began = time.monotonic()
        log.close()
        end = time.monotonic() - began
    expected = 100 * options.metrics
    return {
        "errors": errors,
        "points_missing": expected - first[1],
        "points_twice": first[0] - first[1],
        "added_by_replays": added,
        "end_with_a_dead_server_s": round(end, 2),
    }


def forget(path: Path) -> None:
    """As if every acknowledgement had been lost."""
    key = (path / "tracking_sent.jsonl").read_text().splitlines()[0]
    (path / "tracking_sent.jsonl").write_text(f"{key}\n")


def bench_processes(options: argparse.Namespace) -> dict[str, Any]:
    """Begin many processes at once on a database that is not there."""
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/all.db"
        command = [sys.executable, __file__, "--be-one-of", uri]
        began = time.monotonic()
        jobs = [
            subprocess.Popen([*command, f"{folder}/{n}"], stdout=subprocess.PIPE, text=True)
            for n in range(options.processes)
        ]
        said = [job.communicate()[0] for job in jobs]
        with contextlib.closing(sqlite3.connect(f"{folder}/all.db")) as database:
            (count,) = database.execute("select count(*) from metrics").fetchone()
    return {
        "processes": options.processes,
        "failures": sum(job.returncode != 0 for job in jobs),
        "warnings": [text.strip() for text in said if text],
        "points_missing": options.processes * 50 * 20 - count,
        "seconds": round(time.monotonic() - began, 1),
    }


def be_one_of(uri: str, path: str) -> None:
    """Log 50 steps of 20 metrics."""
    with RunLog(path, experiment="bench", uri=uri, warn=print) as log:
        for step in range(50):
            log.log({f"m{n}": float(step) for n in range(20)}, step)
            time.sleep(0.05)


def bench_slow(options: argparse.Namespace) -> dict[str, Any]:
    """Stop the server's processes in the middle."""
    with served() as (server, folder):
        log = RunLog(folder / "run", experiment="bench", uri=server.uri)
        log.log({"m": 0.0}, 0)
        while not server.points()[0]:  # MLflow takes seconds to import
            time.sleep(0.2)
        server.signal(signal.SIGSTOP)
        taken = timed(lambda metrics, step: log.log(metrics, step + 1), options)
        began = time.monotonic()
        log.close()
        end = time.monotonic() - began
        server.signal(signal.SIGCONT)
        left = sync(folder / "run", server.uri).left["points"]
        missing = options.calls * options.metrics + 1 - server.points()[1]
    return {
        "RunLog.log": times(taken),
        "end_s": round(end, 2),
        "left_after_sync": left,
        "points_missing": missing,
    }


class Nothing:
    """A proxy that trains nothing."""

    def group_size(self, corpus: Any, training: Any) -> int:
        """Return how many trials train together."""
        return 8

    def train(
        self, trials: Sequence[Any], corpus: Any, training: Any, report: Any
    ) -> list[TrialResult]:
        """Return losses that say nothing."""
        from mixopt.trials import Losses, TrialResult

        names = [domain.name for domain in corpus.evaluation]
        losses = Losses(training.tokens, dict.fromkeys(names, 2.0), dict.fromkeys(names, 1.0))
        return [
            TrialResult(trial.name, "finished", training.tokens, 1, 0.001, losses)
            for trial in trials
        ]


SWEEP = """\
name: nothing
corpus:
  domains:
    one: {{path: {folder}/one.jsonl}}
    two: {{path: {folder}/two.jsonl}}
    three: {{path: {folder}/three.jsonl}}
design: {{trials: {trials}, rounds: off, replicates: 2, max_usage: null}}
proxy: {{name: "bench_tracking:Nothing", tokens: 1000, eval_tokens: 1024}}
sweep: {{workers: 2}}
objective: {{target: one}}
tracking: {{enabled: {tracked}}}
"""


def bench_sweep(options: argparse.Namespace) -> dict[str, Any]:
    """Count the CPU of tracked and untracked sweeps."""
    found, start = [], mlflow_start()
    for trials in options.trials:
        plain, ours = (sweep_cpu(trials, tracked=tracked) for tracked in (False, True))
        found.append(
            {
                "trials": trials,
                "untracked_s": round(plain, 1),
                "tracked_s": round(ours, 1),
                "less_start_over_untracked": round((ours - start) / plain, 2),
            }
        )
    rows = [" | ".join(f"{value:>{len(name)}}" for name, value in row.items()) for row in found]
    sys.stderr.write("\n".join([" | ".join(found[0]), *rows]) + "\n")
    return {"mlflow_start_s": round(start, 1), "sweeps": found}


def mlflow_start() -> float:
    """Return the CPU of importing MLflow and making an empty database."""
    with tempfile.TemporaryDirectory() as folder:
        code = "import sys; from mlflow import MlflowClient; from mlflow.entities import Metric;"
        code += " MlflowClient(tracking_uri=sys.argv[1]).search_experiments()"
        return cpu_of([sys.executable, "-c", code, f"sqlite:///{folder}/empty.db"])


def sweep_cpu(trials: int, *, tracked: bool) -> float:
    """Return the CPU of the step `sweep`, once its corpus and design are there."""
    with tempfile.TemporaryDirectory() as name:
        folder, flag = Path(name), str(tracked).lower()
        for domain in ("one", "two", "three"):
            lines = [json.dumps({"text": f"{domain} text number {n} " * 20}) for n in range(200)]
            (folder / f"{domain}.jsonl").write_text("\n".join(lines))
        config = folder / "nothing.yaml"
        config.write_text(SWEEP.format(folder=folder, trials=trials, tracked=flag))
        command = [sys.executable, "-m", "mixopt"]
        more = [str(config), "--out", str(folder / "run")]
        for step in ("prepare", "design"):
            cpu_of([*command, step, *more])
        used = cpu_of([*command, "sweep", *more])
        if tracked:
            expected = trials + 1
            with contextlib.closing(sqlite3.connect(folder / "run/mlflow.db")) as database:
                (count,) = database.execute("select count(*) from runs").fetchone()
            assert count >= expected, f"{count} runs of {expected} were recorded"
    return used


def cpu_of(command: list[str]) -> float:
    """Return the seconds of user and system time of a command and its children."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: {said}")
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Print a line of JSON for each question."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    for name, default in (("calls", 2000), ("metrics", 20), ("processes", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 2000])
    known = "log, outage, processes, slow, sweep; all of them"
    parser.add_argument("questions", nargs="*", help=known)
    parser.add_argument("--be-one-of", nargs=2, metavar=("URI", "DIR"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.be_one_of:
        be_one_of(*options.be_one_of)
        return
    for name, bench in (
        ("log", bench_log),
        ("outage", bench_outage),
        ("processes", bench_processes),
        ("slow", bench_slow),
        ("sweep", bench_sweep),
    ):
        if name in (options.questions or [name]):
            print(json.dumps({name: bench(options)}), flush=True)


if __name__ == "__main__":
    main()
