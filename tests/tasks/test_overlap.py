"""Training text that has an item's answer with 13 words of context is counted, and dropped."""

from __future__ import annotations

import json

import pytest

from mixopt.config import CorpusConfig, TasksConfig
from mixopt.corpus import prepare_corpus
from mixopt.tasks import AnswerFinder, Item

CONTEXT = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen:"
ANSWER = " the capital is Reykjavík."
ITEM = Item("1", (CONTEXT,), (ANSWER,), 0)


@pytest.fixture
def finder():
    found = AnswerFinder()
    found.add("geo", [ITEM])
    return found


@pytest.mark.parametrize(
    "text",
    [
        CONTEXT + ANSWER,
        "Before. " + CONTEXT[4:] + ANSWER + " After.",
        CONTEXT.upper().replace(" ", "\n") + "\t" + ANSWER.replace(".", "!"),
        "fourteen Reykjavík " + CONTEXT + ANSWER,
    ],
)
def test_it_is_found_whatever_is_around_it_and_however_it_is_spaced(finder, text):
    assert finder.tasks_in(text) == {"geo"}


@pytest.mark.parametrize(
    "text",
    [
        CONTEXT,
        ANSWER * 9,
        CONTEXT.replace("eight", "ate") + ANSWER,
        CONTEXT + ANSWER.replace("capital", "town"),
        "three four five six seven eight nine ten eleven twelve thirteen fourteen" + ANSWER,
        "",
    ],
)
def test_less_than_the_answer_with_13_words_is_not_enough(finder, text):
    assert finder.tasks_in(text) == set()


def test_items_of_few_words_are_not_looked_for():
    finder = AnswerFinder()
    finder.add("short", [Item("1", ("Paris is",), (" in France",), 0)])
    assert finder.tasks_in("Paris is in France") == set()


def test_the_gold_choice_and_its_own_context_are_looked_for():
    finder = AnswerFinder()
    contexts = (CONTEXT.replace("one", "zero"), CONTEXT.replace("two", "due"))
    finder.add("t", [Item("1", contexts, (" a", " b"), 1)])
    assert finder.tasks_in(contexts[1] + " b") == {"t"}
    assert finder.tasks_in(contexts[1] + " a") == set()


@pytest.fixture
def corpus(tmp_path):
    """Prepare two domains, of which one has a document with an answer; return what was said."""
    words = [f"document {n} about word{n} and thing{n * 7}. " * 20 for n in range(40)]
    leak = f"Quiz. {CONTEXT}{ANSWER} " + "More text. " * 30
    for name, texts in {"web": [*words[:20], leak], "law": words[20:]}.items():
        rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / f"{name}.jsonl").write_text(rows)
    (tmp_path / "geo.jsonl").write_text(json.dumps(ITEM.to_json()) + "\n")

    def prepared(**fields):
        domains = {name: {"path": str(tmp_path / f"{name}.jsonl")} for name in ("web", "law")}
        given = {"domains": domains, "validation_fraction": 0.1}
        tasks = TasksConfig.model_validate({"sets": {"geo": str(tmp_path / "geo.jsonl")}, **fields})
        said = []
        found = prepare_corpus(
            CorpusConfig.model_validate(given),
            {},
            tmp_path / "corpus",
            tasks=tasks,
            fingerprint="x",
            progress=said.append,
        )
        return found, [line for line in said if "answers of tasks" in line]

    return prepared


def test_prepare_counts_them(corpus):
    found, said = corpus()
    assert said == [
        "web: 1 training document has answers of tasks (geo 1): warning: tasks.drop_overlap: true"
        " leaves them out"
    ]
    assert "answers_of_tasks" not in found.provenance["sources"]["web"]["read"]


def test_prepare_leaves_them_out_where_that_is_asked(corpus):
    before, _ = corpus()
    after, said = corpus(drop_overlap=True)
    assert said == ["web: 1 training document has answers of tasks (geo 1): left out"]
    read = after.provenance["sources"]["web"]["read"]
    assert read["answers_of_tasks"] == 1
    assert (
        read["train_documents"]
        == before.provenance["sources"]["web"]["read"]["train_documents"] - 1
    )
    lost = before.inventory["web"] - after.inventory["web"]
    assert lost == len(f"Quiz. {CONTEXT}{ANSWER} {'More text. ' * 30}".encode()) + 1
    assert before.inventory["law"] == after.inventory["law"]
