"""Change the files that mixopt reads at random, and see that nothing but its own errors comes out.

    python experiments/checks/fuzz.py [--seconds 900] [--seed 0] [--family NAME ...] [--jobs 2]

Each family of files is read in a process of its own, so that a crash of a library is found, and a
read that takes over twenty seconds. Prints how many changes each family had, how many were refused,
and what was found, each with the number of the change that shows it again (`--family NAME --only
NUMBER --seed SEED`). The exit code is 1 where something was found.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

from fuzz_changes import changed, record_again
from fuzz_families import FAMILIES, write_files

from mixopt.errors import MixoptError

PATIENCE = 20  # seconds of one read
SHOWN = 12  # findings of a family


def main() -> int:
    """Fuzz all families, or be the process of one."""
    asked = _arguments()
    if asked.child is not None:
        _fuzz(asked.child, Path(asked.files), asked.seconds, asked.seed, asked.only)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        names = asked.family or list(FAMILIES)
        each = asked.seconds * asked.jobs / len(names)
        with ThreadPoolExecutor(asked.jobs) as pool:
            found = list(pool.map(lambda name: _family(name, Path(folder), each, asked), names))
    total = 0
    for name, (cases, refused, faults) in zip(names, found, strict=True):
        print(f"{name:<22} {cases:>7} changes, {refused:>7} refused, {len(faults)} found")
        for fault in faults[:SHOWN]:
            print(f"    {fault}")
        total += len(faults)
    print(f"{sum(cases for cases, _, _ in found)} changes, {total} found")
    return 1 if total else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", action="append", choices=list(FAMILIES))
    parser.add_argument("--only", type=int)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--files", help=argparse.SUPPRESS)
    return parser.parse_args()


def _family(
    name: str, files: Path, seconds: float, asked: argparse.Namespace
) -> tuple[int, int, list[str]]:
    """Run the process of a family, and another one after each crash, until the time is over."""
    until, cases, refused, seed = time.monotonic() + seconds, 0, 0, asked.seed
    faults: dict[str, str] = {}
    while (left := until - time.monotonic()) > 0 or not cases:
        done, code = _child(name, files, max(left, 5.0), seed, asked.only)
        for line in done:
            cases += 1
            refused += line.get("outcome") == "refused"
            if line.get("outcome") == "fault":
                faults.setdefault(
                    line["what"], f"--seed {seed} --only {line['case']}: {line['what']}"
                )
        if code != 0:
            case = done[-1]["case"] + 1 if done else 0
            what = "no answer, killed" if code == "hung" else f"the process died with {code}"
            faults.setdefault(what, f"--seed {seed} --only {case} (or the one after): {what}")
        seed += 1_000_000
        if asked.only is not None:
            break
    return cases, refused, list(faults.values())


def _child(
    name: str, files: Path, seconds: float, seed: int, only: int | None
) -> tuple[list[dict[str, Any]], Any]:
    command = [sys.executable, __file__, "--child", name, "--files", str(files)]
    command += ["--seconds", str(seconds), "--seed", str(seed)]
    command += [] if only is None else ["--only", str(only)]
    with tempfile.TemporaryFile("w+") as answers:
        process = subprocess.Popen(
            command,
            stdout=answers,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        try:
            code: Any = process.wait(seconds + 4 * PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = "hung"
        answers.seek(0)
        lines = [line for line in answers.read().splitlines() if line.endswith("}")]
    return [json.loads(line) for line in lines], code


def _fuzz(name: str, files: Path, seconds: float, seed: int, only: int | None) -> None:
    """Change and read files, a line of JSON a change."""
    family = FAMILIES[name]
    signal.signal(signal.SIGALRM, _too_long)
    answers, sys.stdout = sys.stdout, sys.stderr
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(shutil.copytree(files, Path(scratch) / "files"))
        paths = sorted(path for pattern in family.files for path in folder.glob(pattern))
        end, case = time.monotonic() + seconds, 0 if only is None else only
        while time.monotonic() < end:
            random = Random(f"{name} {seed} {case}")
            line = {"case": case, **_one(family, folder, files, random.choice(paths), random)}
            answers.write(json.dumps(line) + "\n")
            answers.flush()
            case += 1
            if only is not None:
                break


def _one(family: Any, folder: Path, files: Path, path: Path, random: Random) -> dict[str, str]:
    path.write_bytes(changed(path, random))
    if family.manifest is not None and random.random() < 0.8 and folder / family.manifest != path:
        manifest = folder / family.manifest
        near = path.relative_to(manifest.parent).as_posix()
        record_again(manifest, path, near)
    signal.alarm(PATIENCE)
    try:
        family.look(folder)
        return {"outcome": "read"}
    except MixoptError as error:
        if "\n" in str(error):
            return {"outcome": "fault", "what": f"{path.name}: two lines: {str(error)[:300]!r}"}
        return {"outcome": "refused"}
    except BaseException as error:
        return {"outcome": "fault", "what": f"{path.name}: {_where(error)}"}
    finally:
        signal.alarm(0)
        _restore(
            folder, files, [path] if family.manifest is None else [path, folder / family.manifest]
        )
        if family.writes:
            shutil.rmtree(folder)
            shutil.copytree(files, folder)


def _restore(folder: Path, files: Path, changed_files: list[Path]) -> None:
    for path in changed_files:
        shutil.copy2(files / path.relative_to(folder), path)


def _where(error: BaseException) -> str:
    """Return an error in a line, with the last line of ours that it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/mixopt" in f.filename and "site-packages" not in f.filename]
    place = f"{'/'.join(Path(ours[-1].filename).parts[-3:])}:{ours[-1].lineno}" if ours else "?"
    return f"{place}: {type(error).__name__}: {' '.join(str(error).split())[:160]}"


def _too_long(*_: object) -> None:
    raise TimeoutError(f"no answer in {PATIENCE} s")


if __name__ == "__main__":
    sys.exit(main())
