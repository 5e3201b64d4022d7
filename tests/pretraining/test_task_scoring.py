"""`mixopt pretrain --score`: scores of a checkpoint against the slow way, and mistakes of users."""

import json
import pydoc_data.topics

import numpy as np
import pytest
import torch
from command_line import mixopt
from made_models import SMALL, logits_of
from pretrain_runs import CONFIG, DECODER, write_config

from mixopt.corpus import encode_task, read_items
from mixopt.errors import RunError
from mixopt.pretraining import open_origin, pretrain, score_tasks
from mixopt.testing import tiny_corpus

LENGTH = 48
MODELS = {"decoder": DECODER["options"], "llama": SMALL["llama"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus, tasks, and a run of each model."""
    folder = tmp_path_factory.mktemp("scoring")
    tiny_corpus(folder / "corpus")
    text = pydoc_data.topics.topics["strings"]
    (folder / "tasks").mkdir()
    questions = [
        {"id": n, "context": text[: 9 * n], "continuation": text[9 * n :][:7]} for n in range(1, 12)
    ]
    gone = [{"id": n, "context": "", "continuation": text[n * 80 :][:70]} for n in range(3)]
    for name, rows in {"asked": questions, "gone_on": gone}.items():
        lines = "\n".join(json.dumps(row) for row in rows)
        (folder / "tasks" / f"{name}.jsonl").write_text(lines, "utf-8")
    training = {**CONFIG["training"], "steps": 4, "batch": 4, "sequence_length": LENGTH}
    for name, options in MODELS.items():
        model = {"name": name, "options": options}
        parts = {"model": model, "training": training, "checkpoint": {"every": 2}}
        pretrain(write_config(folder, corpus=str(folder / "corpus"), **parts), folder / name)
    return folder


def slowly(model, length, task):
    """Each token alone: what the model says after all that fits before it."""
    sums_R = np.zeros(task.rows)
    for number in range(task.rows):
        tokens = task.row(number).astype(np.int64)
        assert len(tokens) - task.scored_R[number] <= length or task.name == "gone_on"
        start = max(0, len(tokens) - 1 - length)
        for place in range(int(task.scored_R[number]), len(tokens)):
            logits = logits_of(model, torch.from_numpy(tokens[start:place])[None])
            sums_R[number] += float(logits[0, -1].double().log_softmax(-1)[int(tokens[place])])
    return task.bits_per_byte(sums_R)


def test_scores_equal_those_of_one_token_at_a_time(folder):
    scores = score_tasks(folder / "decoder", folder / "tasks", device="cpu", trust=True)
    assert list(scores["tasks"]) == ["asked", "gone_on"]
    origin = open_origin(folder / "decoder", trust=True)
    items = list(read_items(folder / "tasks" / "asked.jsonl"))
    task = encode_task("asked", items, origin.tokenizer())
    slow = slowly(origin.module(), origin.length, task)
    assert scores["tasks"]["asked"]["bits_per_byte"] == pytest.approx(slow, abs=1e-5)


def test_items_and_checkpoints_are_chosen(folder):
    options = {"device": "cpu", "trust": True, "items": 5}
    older = folder / "llama" / "checkpoints" / "step-00000002"
    found = score_tasks(older, folder / "tasks", **options)
    assert (found["step"], found["length"]) == (2, LENGTH)
    assert [task["items"] for task in found["tasks"].values()] == [5, 3]
    message = "corpus': has no model; expected .* the directory of a mixopt pretrain, or one of its"
    with pytest.raises(RunError, match=message):
        score_tasks(folder / "corpus", folder / "tasks", **options)


def test_the_command_prints_a_table_and_json(folder):
    cut = sum(9 * n + 7 > LENGTH for n in range(1, 12))
    command = ("pretrain", folder / "decoder", "--score", folder / "tasks", "--trust")
    table = mixopt(*command)
    assert table.code == 0, table.error
    title, _, head, _, *rows = [line.strip() for line in table.out.splitlines()]
    assert title == "step-00000004, 48 tokens at once, float32"
    assert head.split() == ["task", "bits", "per", "byte", "items", "cut"]
    answer = json.loads(mixopt(*command, "--json").out)
    assert answer["step"] == 4
    assert [row.split() for row in rows if row] == [
        [name, f"{task['bits_per_byte']:.4f}", str(task["items"]), str(task["cut"])]
        for name, task in answer["tasks"].items()
    ]
    assert [task["cut"] for task in answer["tasks"].values()] == [cut, 3]
