"""Tasks in a run: a planted task ranks mixtures by the domain that it is of."""

from __future__ import annotations

import json
import sysconfig
from pathlib import Path

import pytest
import yaml

from mixopt import load_run
from mixopt.fitting import spearman
from mixopt.pipeline import steps

LIBRARY = Path(sysconfig.get_paths()["stdlib"])


def write_task_file(path, documents, *, cut=60, most=40):
    """A task that goes on with each document."""
    rows = [
        {"id": n, "context": text[:cut], "continuation": text[cut : cut + 120]}
        for n, text in enumerate(documents)
        if text[cut : cut + 120].strip()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:most]))
    return path


def tables():
    """Pieces of Python's tables of characters, which are little like its docstrings."""
    files = sorted((LIBRARY / "encodings").glob("cp*.py"))
    texts = [path.read_text(encoding="utf-8") for path in files]
    return [text[at : at + 2000] for text in texts for at in range(2000, 12_000, 2000)]


def texts_of(path):
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, text_files):
    """Text of two domains, and of each that of every fourth document in a task."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, texts in {"code": tables(), "prose": texts_of(text_files["prose"])}.items():
        write_task_file(folder / f"{name}.jsonl", texts[::4])
        rows = (json.dumps({"text": t}) for n, t in enumerate(texts) if n % 4)
        (folder / f"{name}_text.jsonl").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def config_file(folder, experiment):
    content = yaml.safe_load(experiment)
    sets = {
        "code": {"path": str(folder / "code.jsonl"), "family": "coding"},
        "prose": str(folder / "prose.jsonl"),
        "prose_again": str(folder / "prose.jsonl"),
    }
    content["tasks"] = {"sets": sets, "items": 30}
    for name in ("code", "prose"):
        content["corpus"]["domains"][name] = {"path": str(folder / f"{name}_text.jsonl")}
    content["proxy"] |= {"tokens": 60_000, "eval_tokens": 16_384}
    content["objective"] = {"target": "family/coding"}
    content["design"]["method"] = "dirichlet"  # shares all along the line
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def run(folder, config_file):
    steps.run(config_file, folder / "run", until="fit")
    return load_run(folder / "run")


@pytest.mark.nightly
def test_a_planted_task_ranks_mixtures_by_its_domain(run):
    """Text of a domain as gold: what else is in the mixture matters less than its share."""
    names = [f"task/{name}/bits_per_byte" for name in ("code", "prose", "prose_again")]
    assert run.trials.targets == ("code", "prose", "help", *names)
    table = run.trials.table
    assert (table[names[1]] == table[names[2]]).all()
    for domain in ("code", "prose"):
        shares, values = table[f"weight/{domain}"], table[f"task/{domain}/bits_per_byte"]
        assert spearman(-shares.to_numpy(), values.to_numpy()) > 0.9
