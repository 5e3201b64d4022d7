"""Any file of a run directory in any state: a command refuses it in a line, or answers the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import damaged_run
import pytest
from fault_runs import KINDS, variables

# One of each kind of file; the others of a kind are read by the same code.
FILES = (
    "config.yaml",
    "steps.json",
    "design.parquet",
    "trials.parquet",
    "trials/groups.json",
    "trials/group_sizes.json",
    "trials/attempts.jsonl",
    "trials/t0000.json",
    "corpus/index.json",
    "corpus/code/train/index.json",
    "corpus/code/train/00000.bin",
    "corpus/tasks/words.npz",
    "fit/fit.json",
    "fit/report.parquet",
    "fit/trials.parquet",
    "fit/regressor/regressor.json",
    "fit/regressor/arrays.npz",
    "proposal.yaml",
    "validation.parquet",
    "validation/groups.json",
    "validation/attempts.jsonl",
    "validation/gains.jsonl",
    "recommendation.yaml",
    "start.json",
)
USUAL = ("steps.json", "trials/t0000.json", "fit/fit.json", "proposal.yaml", "recommendation.yaml")


def test_every_kind_of_file_of_a_run_is_damaged_below(whole):
    run = whole.states["end"]
    paths = {p.relative_to(run) for p in run.rglob("[!.]*") if p.is_file()}
    shown = {".log", ".svg", ".png", ".html"}  # nothing reads those
    read = {p for p in paths if p.suffix not in shown}
    assert {_kind(p) for p in read} == {_kind(p) for p in read if str(p) in FILES}


def _kind(path):
    return path.parts[0] if len(path.parts) > 1 else path.name, path.suffix


@pytest.mark.parametrize("file", [file for file in FILES if KINDS or file in USUAL])
def test_a_damaged_file_is_refused_in_a_line_or_changes_nothing(whole, tmp_path, file):
    if not (whole.states["end"] / file).exists():
        pytest.skip(f"this run has no {file}")
    shutil.copy(whole.config, tmp_path / "faults.yaml")
    shutil.copy(whole.states["end"] / "trials.parquet", tmp_path / "unseen.parquet")
    command = [sys.executable, damaged_run.__file__, whole.states["end"], file, tmp_path]
    ended = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        check=False,
        env=variables({}),
        timeout=600,
    )
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert ended.returncode == 0, (lines[-1:], ended.stderr[-2000:])
    found = zip(lines[::2], lines[1::2], strict=True)
    wrong = [
        f"{' '.join(case['case'])}: {one['found']}: {one['message'][-600:]}"
        for case, one in found
        if one["found"] in {"other", "raised"}
    ]
    assert not wrong, "\n".join(wrong)
