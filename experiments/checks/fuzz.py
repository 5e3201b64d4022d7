"""Change files that mixopt reads at random, and see that only its own errors come out.

    python experiments/checks/fuzz.py [--seconds 900] [--seed 0] [--only NUMBER]

One finished run is made; in each case one byte string of one of its files, of its text or of its
configuration is flipped, cut, repeated or replaced, and what reads it is called. Cases run in
processes of their own, so that a crash of a library is found, and a read that takes over a minute.
A case is shown again by its number. The exit code is 1 where something was found.
"""

from __future__ import annotations

import argparse
import inspect
import json
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random

import yaml

PATIENCE = 60.0  # seconds of one case
CASES = 20  # of one process
MODULES = ("argparse", "ast", "calendar", "difflib", "inspect", "tarfile")
EXPERIMENT = {
    "name": "fuzzed",
    "corpus": {"domains": {n: {"path": f"{n}.jsonl"} for n in ("code", "more")}},
    "design": {"trials": 8, "rounds": "off"},
    "proxy": {"name": "ngram", "tokens": 20_000},
    "objective": {"target": "code"},
    "fit": {"regressors": ["log_linear"]},
    "validate": {"seeds": 3},
    "tracking": {"enabled": False},
}


def main() -> int:
    """Fuzz for so many seconds, or try the cases of one process."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one case")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--files", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        numbers = range(options.child, options.child + CASES)
        for number in numbers if options.only is None else [options.only]:
            print(json.dumps(try_case(options.files, options.seed, number)), flush=True)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        make_files(files)
        return report(files, options.seconds, options.seed, options.only)


def make_files(folder: Path) -> None:
    """Write text, its experiment and a finished run."""
    for place, name in enumerate(EXPERIMENT["corpus"]["domains"]):
        texts = [inspect.getsource(__import__(m)) for m in MODULES[place::2]]
        parts = [text[at : at + 2000] for text in texts for at in range(0, len(text), 2000)]
        lines = (json.dumps({"text": part}) + "\n" for part in parts)
        (folder / f"{name}.jsonl").write_text("".join(lines))
    (folder / "experiment.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    command = [sys.executable, "-m", "mixopt", "run", "experiment.yaml", "--out", "run"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def report(files: Path, seconds: float, seed: int, only: int | None) -> int:
    """Start processes until the time is up; print the faults."""
    until, first, refused, faults = time.monotonic() + seconds, 0, 0, []
    while time.monotonic() < until:
        command = [sys.executable, __file__, "--files", str(files), "--seed", str(seed)]
        command += ["--child", str(first)] + ([] if only is None else ["--only", str(only)])
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=PATIENCE * CASES, check=False
            )
            ended = "" if done.returncode == 0 else f"exit code {done.returncode}"
            lines = done.stdout.splitlines()
        except subprocess.TimeoutExpired as error:
            ended, lines = "hangs", (error.stdout or b"").decode().splitlines()
        results = [json.loads(line) for line in lines]
        refused += sum(case["refused"] for case in results)
        faults += [case for case in results if case["fault"]]
        if ended:
            faults.append({"case": first + len(results), "file": "?", "fault": ended})
        first += CASES
        if only is not None:
            break
    for case in faults:
        print(f"case {case['case']} ({case['file']}): {case['fault']}")
    print(f"{first} changes, {refused} refused, {len(faults)} found")
    return 1 if faults else 0


def try_case(files: Path, seed: int, number: int) -> dict[str, object]:
    """Change one file, read it and report the result."""
    from mixopt.errors import MixoptError

    random = Random(f"{seed}/{number}")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "files")
        shutil.copytree(files, copy)
        choice = random.choice(sorted(p for p in copy.rglob("*") if p.is_file()))
        choice.write_bytes(changed(choice.read_bytes(), random))
        name = choice.relative_to(copy).as_posix()
        started, fault, refused = time.monotonic(), "", False
        try:
            read_all(copy, name)
        except MixoptError:
            refused = True
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            fault = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        if time.monotonic() > started + PATIENCE:
            fault = fault or f"took {time.monotonic() - started:.0f} s"
    return {"case": number, "file": name, "refused": refused, "fault": fault}


def changed(content: bytes, random: Random) -> bytes:
    """Return changed content: bits flipped, bytes cut, repeated or replaced."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 8))):
        place, size = random.randrange(len(data) + 1), random.choice((1, 4, 64, 1024))
        kind = random.randrange(5)
        if kind == 0 and place < len(data):
            data[place] ^= 1 << random.randrange(8)
        elif kind == 1:
            del data[place:]
        elif kind == 2:
            del data[place : place + size]
        elif kind == 3:
            data[place:place] = data[place : place + size]
        else:
            data[place : place + size] = random.randbytes(size)
    return bytes(data)


def read_all(files: Path, name: str) -> None:
    """Call the readers of a file."""
    import mixopt

    if not name.startswith("run/"):
        mixopt.run(files / "experiment.yaml", files / "again", until="prepare")
        return
    if name in {"run/proposal.yaml", "run/recommendation.yaml"}:
        mixopt.Mixture.from_file(files / name)
    run = mixopt.load_run(files / "run")
    for part in ("trials", "fit", "proposal", "validation", "recommendation", "corpus"):
        getattr(run, part)


if __name__ == "__main__":
    sys.exit(main())
