"""Any file of a run directory in any state: a command refuses it in a line, or answers the same."""

import os
import shutil

import pytest
from command_line import mixopt
from fault_runs import KINDS

# One of each kind of file; the others of a kind are read by the same code.
FILES = (
    "config.yaml",
    "steps.json",
    "design.parquet",
    "trials.parquet",
    "trials/groups.json",
    "trials/group_size.json",
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


def damage(path, how, outside):
    """Damage a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.unlink()
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        path.write_bytes(content)
    elif how == "list":
        path.write_text("[1, {}]\n")
    elif how == "folder":
        path.mkdir()
    elif how == "link":
        outside.write_bytes(content)
        path.symlink_to(outside)
    else:
        os.mkfifo(path)


@pytest.mark.parametrize("how", ["truncated", "flipped", "list", "folder", "link", "pipe"])
@pytest.mark.parametrize("file", [file for file in FILES if KINDS or file in USUAL])
def test_a_damaged_file_is_refused_in_a_line_or_changes_nothing(whole, tmp_path, file, how):
    if not (whole.states["end"] / file).exists():
        pytest.skip(f"this run has no {file}")
    shutil.copy(whole.config, tmp_path / "faults.yaml")
    unseen = shutil.copy(whole.states["end"] / "trials.parquet", tmp_path / "unseen.parquet")
    run = tmp_path / "run"
    for command in ("status", "report", "propose", "fit", "experts"):
        more = ("--test", unseen) if command == "fit" else ()
        answers = []
        for is_damaged in (False, True):
            shutil.rmtree(run, ignore_errors=True)
            shutil.copytree(whole.states["end"], run)
            if is_damaged:
                damage(run / file, how, tmp_path / "outside")
            answers.append(mixopt(command, run, *more))
        expected, found = answers
        if found.code == 0:  # a damaged part is named, or made again first
            is_named = "damaged" in found.out or found.out.startswith("next: mixopt")
            assert is_named or found.out == expected.out, f"{command}: {found.out[-600:]}"
        else:
            assert found.code == 2, f"{command}: {found.error[-600:]}"
            assert len(found.error.splitlines()) == 1, f"{command}: {found.error[-600:]}"
