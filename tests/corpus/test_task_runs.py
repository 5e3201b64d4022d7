"""Tasks in a run: what prepare says, files on disk, columns of trials, and a planted task."""

from __future__ import annotations

import json
import shutil
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import yaml

from mixopt import load_run
from mixopt.corpus import Corpus
from mixopt.errors import ConfigError, CorpusError
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


def fitted(config, out, last="fit", **given):
    """Do the steps up to one."""
    steps.run(config, out, until=last, **given)


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
def said():
    return []


@pytest.fixture(scope="module")
def run(folder, config_file, said):
    fitted(config_file, folder / "run", say=said.append)
    return load_run(folder / "run")


def test_prepare_says_what_there_is_to_score(run, said):
    (line,) = [one for one in said if "task code: 30 items" in one]
    assert "tokens to score of" in line


def test_trials_have_a_column_of_each_task(run):
    names = [f"task/{name}/bits_per_byte" for name in ("code", "prose", "prose_again")]
    assert run.trials.targets == ("code", "prose", "help", *names)
    values = run.trials.table[names[1]]
    assert (values == run.trials.table[names[2]]).all()
    assert ((values > 0) & (values < 20)).all()


def test_a_planted_task_ranks_mixtures_by_its_domain(run):
    """Text of a domain as gold: what else is in the mixture matters less than its share."""
    table = run.trials.table
    for domain in ("code", "prose"):
        shares, values = table[f"weight/{domain}"], table[f"task/{domain}/bits_per_byte"]
        assert spearman(-shares.to_numpy(), values.to_numpy()) > 0.9


def test_a_sweep_that_is_stopped_and_resumed_gives_the_same_table(run, config_file, tmp_path):
    again = tmp_path / "run"
    shutil.copytree(run.path, again)
    for name in ("trials.parquet", "steps.json", "fit"):
        path = again / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for trial in sorted((again / "trials").glob("t*.json"))[::2]:
        trial.unlink()
    fitted(config_file, again, "sweep")
    assert load_run(again).trials.table.drop("seconds").equals(run.trials.table.drop("seconds"))


def test_a_task_that_is_noise_is_refused_as_an_objective_unless_told(experiment, tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {"id": n, "context": "", "continuation": "".join(map(chr, rng.integers(97, 123, 3)))}
        for n in range(20)
    ]
    noise = tmp_path / "noise.jsonl"
    noise.write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = yaml.safe_load(experiment)
    content["tasks"] = {"sets": {"noise": str(noise)}}
    content["objective"] = {"target": "task/noise"}
    content["design"]["replicates"] = 6
    content["proxy"]["tokens"] = 2000
    path = tmp_path / "noise.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(ConfigError, match="objective: 'task/noise/bits_per_byte' is noise: its s"):
        fitted(path, tmp_path / "run")
    assert not (tmp_path / "run" / "fit").exists()
    told = ["objective.noise=allow"]
    steps.run(path, tmp_path / "run", overrides=told, until="fit")
    assert (tmp_path / "run" / "fit").exists()


def test_a_damaged_or_missing_file_of_a_task_is_refused(run, tmp_path):
    corpus = tmp_path / "corpus"
    shutil.copytree(run.path / "corpus", corpus)
    path = corpus / "tasks" / "code.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=r"tasks/code\.npz: has changed"):
        Corpus.open(corpus)
    path.unlink()
    with pytest.raises(CorpusError, match=r"tasks/code\.npz: is missing"):
        Corpus.open(corpus)
