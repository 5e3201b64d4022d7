"""The trivial answers that experiments are compared with, and the halves of tasks."""

from __future__ import annotations

import json

import pytest
from experiment_modules import experiment

from mixopt.config import CorpusConfig, DomainConfig
from mixopt.corpus import Corpus, prepare_corpus

TEXTS = {"letters": "plain words of prose. ", "digits": "0123 4567 8901 ", "code": "f(x)={y}; "}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trivial")
    for name, line in TEXTS.items():
        rows = "".join(json.dumps({"text": f"{line * 20}{row}"}) + "\n" for row in range(40))
        (folder / f"{name}.jsonl").write_text(rows)
    sources = {
        name: DomainConfig(path="json", data_files=str(folder / f"{name}.jsonl")) for name in TEXTS
    }
    prepare_corpus(CorpusConfig(domains=sources), {}, folder / "corpus", fingerprint="trivial")
    return Corpus.open(folder / "corpus")


@pytest.fixture(scope="module")
def story_text():
    return experiment("story", "story_text")


def write_tasks(folder, story_text, answers):
    for name in story_text.FAMILIES:
        rows = [{"id": str(n), "context": "?", "continuation": answers[name]} for n in range(9)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_each_task_gives_its_weight_to_the_domain_whose_bytes_its_answers_have(
    text, story_text, tmp_path
):
    families = story_text.FAMILIES
    answers = {n: TEXTS["code" if f == "coding" else "letters"] for n, f in families.items()}
    answers["sciq_rc_0shot"] = TEXTS["digits"]
    write_tasks(tmp_path, story_text, answers)
    found = story_text.trivial_mixture(text, (*TEXTS,), tmp_path)
    assert dict(found) == {"letters": 0.25, "digits": 0.25, "code": 0.5}
