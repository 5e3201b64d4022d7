"""What logging takes of a training thread, and what MLflow's failures cost.

    python experiments/benchmarks/bench_tracking.py [--calls 2000] [--metrics 20] [--processes 8]

Four questions, a line of JSON each, all with real servers and processes:

log         the time of `RunLog.log` with `--metrics` metrics, median and 99th percentile, and of
            `mlflow.log_metrics` of the same to the same server, at its default settings and with
            `synchronous=False`; all four beside the limit of 0.5 ms
outage      a run whose server is killed for 60% of it: errors, points that are missing at its end,
            how long its end takes when the server is down; then all sent twice more: points added
processes   `--processes` processes that begin at once on a SQLite file that is not there
slow        a server that is stopped (SIGSTOP) in the middle: the same time of `log`, and of the end
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mixopt.tracking import RunLog, sync

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
            sync(folder / "run")
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
    record = json.loads((path / "tracking.json").read_text())
    (path / "tracking.json").write_text(json.dumps({**record, "servers": {}}))


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
        left = sync(folder / "run").left["points"]
        missing = options.calls * options.metrics + 1 - server.points()[1]
    return {
        "RunLog.log": times(taken),
        "end_s": round(end, 2),
        "left_after_sync": left,
        "points_missing": missing,
    }


def main() -> None:
    """Print a line of JSON for each question."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    for name, default in (("calls", 2000), ("metrics", 20), ("processes", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("questions", nargs="*", help="log, outage, processes, slow; all of them")
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
    ):
        if name in (options.questions or [name]):
            print(json.dumps({name: bench(options)}), flush=True)


if __name__ == "__main__":
    main()
