"""How much faster a preparation is with more processes, and how much memory all of them take.

    python experiments/benchmarks/bench_prepare.py --megabytes 1000 --workers 2

Text is source code of the installed packages, in four domains of one JSON-lines file each, with a
number before each piece where the packages have less. One process is prepared with first, its
library for tokenising held to one thread; then as many as asked. Both must give the same shards.
Run it where nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from itertools import cycle
from pathlib import Path

import psutil

DOMAINS = 4
PREPARE = """
import sys
from mixopt.config import CorpusConfig
from mixopt.corpus import prepare_corpus
folder, out, tokenizer, workers = sys.argv[1:]
domains = {name: {"path": f"{folder}/{name}.jsonl"} for name in %r.split()}
config = CorpusConfig.model_validate({"domains": domains, "tokenizer": tokenizer})
prepare_corpus(config, {}, out, fingerprint="bench", workers=int(workers), progress=print)
"""


def main() -> None:
    """Make the text, prepare it with one process and with several, and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--megabytes", type=int, default=200)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--tokenizer", default="bpe:8192")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        names = write_text(Path(folder), given.megabytes)
        results = []
        for workers in (1, given.workers):
            out = Path(folder) / f"corpus-{workers}"
            seconds, peak = measured(Path(folder), out, names, given.tokenizer, workers)
            results.append((seconds, shards(out)))
            print(
                f"{workers} processes: {seconds:.1f} s, {given.megabytes / seconds:.1f} MB/s,"
                f" {peak / 1e6:,.0f} MB resident at most in all processes"
            )
        (alone, made), (several, same) = results
        assert made == same, "other shards"
        print(f"{given.megabytes} MB, {given.tokenizer}: {alone / several:.2f} times as fast")


def write_text(folder: Path, megabytes: int) -> list[str]:
    """Write the text of the domains, and return their names."""
    names = [f"code-{k}" for k in range(DOMAINS)]
    files = sorted(Path(sysconfig.get_paths()["purelib"]).rglob("*.py"))
    each = megabytes * 1_000_000 // DOMAINS
    for place, name in enumerate(names):
        written = turn = 0
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as stream:
            for path in cycle(files[place::DOMAINS]):
                text = path.read_text(encoding="utf-8", errors="ignore")
                turn += path == files[place]
                for at in range(0, len(text), 4000):
                    piece = (f"# {turn}\n" if turn > 1 else "") + text[at : at + 4000]
                    written += len(piece)
                    stream.write(json.dumps({"text": piece}) + "\n")
                if written >= each:
                    break
    return names


def measured(
    folder: Path, out: Path, names: list[str], tokenizer: str, workers: int
) -> tuple[float, int]:
    """Prepare in a process of its own; return seconds, and the most bytes resident in all."""
    command = [sys.executable, "-c", PREPARE % " ".join(names), str(folder), str(out), tokenizer]
    alone = {**os.environ, "RAYON_NUM_THREADS": "1"} if workers == 1 else dict(os.environ)
    start, peak = time.monotonic(), 0
    process = subprocess.Popen([*command, str(workers)], env=alone, stdout=subprocess.DEVNULL)
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        peak = max(peak, resident(watched))
        time.sleep(0.1)
    assert process.returncode == 0, "the preparation failed"
    return time.monotonic() - start, peak


def resident(process: psutil.Process) -> int:
    """Return the bytes resident in a process and in all that it started."""
    total = 0
    try:
        for member in (process, *process.children(recursive=True)):
            total += member.memory_info().rss
    except psutil.NoSuchProcess:
        return total
    return total


def shards(corpus: Path) -> dict[str, str]:
    """Return the content of all shards' indices."""
    return {str(p.relative_to(corpus)): p.read_text() for p in corpus.rglob("*/index.json")}


if __name__ == "__main__":
    main()
