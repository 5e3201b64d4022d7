"""Scores inside lm-eval, against ours: the same items, the same weights, the real lm-eval.

A small Llama of `mixopt pretrain` is scored by `TrainedModel`, by `MixoptLM` inside lm-eval on the
tasks that we export, and by lm-eval's own `HFLM` on the same weights.
"""

import json
import math
import pydoc_data.topics
import re
import socket
import sysconfig
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml

from mixopt.errors import ConfigError, PluginError
from mixopt.integrations import export_lm_eval_tasks
from mixopt.pretraining import TrainedModel, pretrain
from mixopt.tasks import Item, encode_task, item_scores, read_task_folder

lm_eval = pytest.importorskip("lm_eval", reason="needs lm-eval")
# lm-eval and what it imports warn of what is theirs.
pytestmark = pytest.mark.filterwarnings("ignore")

LENGTH = 256
ARTICLES = (  # the first article of the Universal Declaration of Human Rights
    "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und"
    " Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen.",
    "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de"
    " raison et de conscience et doivent agir les uns envers les autres.",
    "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и"  # noqa: RUF001
    " совестью и должны поступать в отношении друг друга в духе братства.",
    "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",  # noqa: RUF001
    "人人生而自由, 在尊严和权利上一律平等。 他们赋有理性和良心, 并应以兄弟关系的精神相对待。",
)


def topic_items():
    """What follows a passage of Python's manual, and what follows another; white space as it is.

    No context ends in white space: where one does, lm-eval scores another text.
    """

    def word_end(text, start):
        return re.compile(r"(?<=\S) ").search(text, start).start()

    texts = [text for text in pydoc_data.topics.topics.values() if len(text) > 1500][:25]
    for number, text in enumerate(texts):
        cut = word_end(text, 300 + 20 * number)
        other = texts[number - 1]
        wrong = word_end(other, 500)
        choices = (text[cut : cut + 90], other[wrong : wrong + 70])
        gold = number % 2
        yield Item(str(number), (text[:cut],) * 2, choices if not gold else choices[::-1], gold)


def article_items():
    """Characters of two to three bytes, cut before white space."""
    for number, text in enumerate(ARTICLES):
        spaces = [k for k, character in enumerate(text) if character == " "]
        for k in spaces[:6]:
            yield Item(f"{number}/{k}", (text[:k],), (text[k:],), 0)


def code_items():
    """Long answers of many lines, and items without a context."""
    source = (Path(sysconfig.get_paths()["stdlib"]) / "bisect.py").read_text("utf-8")
    functions = source.split("def ")[1:]
    for number, text in enumerate(functions):
        yield Item(f"f{number}", (f"import bisect\n\n\ndef {text[:10]}",), (text[10:460],), 0)
        yield Item(f"e{number}", ("",), (f"def {text[:120]}",), 0)


class Scored(NamedTuple):
    """A run, a folder of tasks, and what our own way makes of each item."""

    run: Path
    folder: Path
    bits: dict[str, list[float]]


def write_tasks(folder: Path, **tasks) -> Path:
    folder.mkdir(parents=True)
    for name, items in tasks.items():
        lines = (json.dumps(item.to_json()) for item in items)
        (folder / f"{name}.jsonl").write_text("\n".join(lines), "utf-8")
    return folder


def own_bits(model, task) -> list[float]:
    rows = [(task.row(r), int(task.scored_R[r])) for r in range(task.rows)]
    return item_scores(task, model.score(rows).log_probability_R)["bits_per_byte"].tolist()


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> Scored:
    folder = tmp_path_factory.mktemp("lm_eval")
    manual = list(pydoc_data.topics.topics.values())[:40]
    articles = [f"{number}. {' '.join(ARTICLES)}" for number in range(40)]
    for name, documents in {"manual": manual, "declaration": articles}.items():
        lines = (json.dumps({"text": text}) for text in documents)
        (folder / f"{name}.jsonl").write_text("\n".join(lines), "utf-8")
    config = {
        "corpus": {
            "tokenizer": "bpe:600",
            "domains": {n: {"path": str(folder / f"{n}.jsonl")} for n in ("manual", "declaration")},
        },
        "model": {
            "name": "llama",
            "options": {
                "hidden_size": 48,
                "intermediate_size": 96,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 4,
            },
        },
        "training": {
            "steps": 25, "batch": 4, "sequence_length": LENGTH, "lr": 0.01, "precision": "float32",
        },
        "held_out": {"tokens": 512},
        "tracking": {"enabled": False},
    }  # fmt: skip
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    pretrain(folder / "run.yaml", folder / "run")
    tasks = write_tasks(
        folder / "tasks", topics=topic_items(), articles=article_items(), code=code_items()
    )
    model = TrainedModel.open(folder / "run", device="cpu")
    bits = {
        name: own_bits(
            model,
            encode_task(name, list(task.items()), ("bits_per_byte",), "bytes", model.tokenizer),
        )
        for name, task in read_task_folder(tasks).items()
    }
    return Scored(folder / "run", tasks, bits)


@pytest.fixture
def evaluated(scored, tmp_path, monkeypatch):
    """From a model to the samples of our tasks, by lm-eval, which reaches no network."""
    import datasets
    from lm_eval.tasks import TaskManager

    def refused(*arguments):
        raise OSError("no network in this test")

    def run(model, folder=scored.folder, **options):
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        names = export_lm_eval_tasks(folder, tmp_path / "exported")
        monkeypatch.setattr(socket.socket, "connect", refused)
        manager = TaskManager(include_path=str(tmp_path / "exported"), include_defaults=False)
        return lm_eval.simple_evaluate(
            model, tasks=names, task_manager=manager, log_samples=True, bootstrap_iters=0, **options
        )

    return run


def bits_of(found, name: str) -> list[float]:
    """Bits per byte of the gold answers in what `--log_samples` keeps."""
    bits = []
    for sample in sorted(found["samples"][f"mixopt_{name}"], key=lambda one: one["doc_id"]):
        doc, answers = sample["doc"], sample["filtered_resps"]
        gold = doc.get("gold", 0)
        answer = doc["choices"][gold] if "choices" in doc else doc["continuation"]
        bits.append(-float(answers[gold][0]) / (len(answer.encode()) * math.log(2)))
    return bits


def hugging_face(model: TrainedModel, run: Path):
    """lm-eval's own model on the same weights, with the end of a document in front of each text."""
    from lm_eval.models.huggingface import HFLM
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    end = "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(run / "corpus" / "tokenizer.json"), bos_token=end, eos_token=end
    )
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{end} $A", special_tokens=[(end, model.tokenizer.end_of_document)]
    )
    return HFLM(
        pretrained=model.model,
        tokenizer=tokenizer,
        max_length=LENGTH,
        add_bos_token=True,
        # It takes items of one text cut at two places for one item (0.4.13).
        logits_cache=False,
        batch_size=4,
        device="cpu",
    )


def test_an_items_bits_per_byte_equal_those_of_lm_evals_own_model(scored, evaluated):
    model = TrainedModel.open(scored.run, device="cpu")
    found = evaluated(hugging_face(model, scored.run))
    for name, bits in scored.bits.items():
        theirs = bits_of(found, name)
        assert len(theirs) == len(bits) >= 8
        assert np.abs(np.array(theirs) - bits).max() < 1e-6, name


def test_an_items_bits_per_byte_are_the_same_inside_lm_eval(scored, evaluated):
    import mixopt.integrations.lm_eval  # noqa: F401, registers the model

    found = evaluated("mixopt", model_args=f"run={scored.run},device=cpu")
    for name, bits in scored.bits.items():
        assert np.abs(np.array(bits_of(found, name)) - bits).max() < 1e-6, name
    assert 0 <= found["results"]["mixopt_topics"]["acc,none"] <= 1


def opened(scored):
    from mixopt.integrations import MixoptLM

    return MixoptLM(scored.run, device="cpu")


def asked(lm, *pairs):
    from lm_eval.api.instance import Instance

    requests = [Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)]
    return lm.loglikelihood(requests, disable_tqdm=True)


def test_an_answer_longer_than_the_model_reads_is_scored_whole(scored):
    text = pydoc_data.topics.topics["operator-summary"][:3000]
    lm = opened(scored)
    task = encode_task(
        "long", [Item("0", ("Precedence",), (f" {text}",), 0)], ("bits_per_byte",), "bytes",
        lm.model.tokenizer,
    )  # fmt: skip
    assert task.scored_tokens > 2 * LENGTH
    total, greedy = asked(lm, ("Precedence", f" {text}"))[0]
    bits = own_bits(lm.model, task)[0]
    assert -total / (len(text.encode()) + 1) / math.log(2) == pytest.approx(bits, abs=1e-6)
    assert not greedy


def test_white_space_at_the_end_of_a_context_is_not_scored(scored):
    lm = opened(scored)
    context = "def first(a):\n    "
    (apart, _), (spaced, _) = asked(lm, (context, "return a"), (context.rstrip(), "\n    return a"))
    assert apart > spaced


def test_rolling_is_a_text_after_the_end_of_a_document(scored):
    from lm_eval.api.instance import Instance

    text = ARTICLES[0]
    lm = opened(scored)
    [total] = lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)])
    assert total == pytest.approx(asked(lm, ("", text))[0][0], abs=1e-6)


def test_the_likeliest_tokens_are_greedy(scored):
    lm = opened(scored)
    tokenizer, model = lm.model.tokenizer, lm.model.model
    import torch

    context = "The following"
    ids = [tokenizer.end_of_document, *lm.tok_encode(context)]
    best = int(model(torch.tensor([ids])).logits[0, -1].argmax())
    answers = lm._loglikelihood_tokens([(("", ""), ids, [best]), (("", ""), ids, [best ^ 1])])
    assert [greedy for _, greedy in answers] == [True, False]


def test_generating_is_refused_in_one_line(scored):
    with pytest.raises(PluginError, match="only scores answers"):
        opened(scored).generate_until([])


def test_contexts_that_differ_by_choice_go_to_lm_eval(scored, evaluated, tmp_path):
    items = [
        Item(str(n), (f"Ann saw {who}; Ann", f"Ann saw {who}; {who}"), (" waved back.",) * 2, n % 2)
        for n, who in enumerate(("Bob", "Cleo", "Dan"))
    ]
    folder = write_tasks(tmp_path / "tasks", grande=items)
    found = evaluated(opened(scored), folder)
    model = TrainedModel.open(scored.run, device="cpu")
    task = encode_task("grande", items, ("bits_per_byte",), "bytes", model.tokenizer)
    theirs = []
    for sample in found["samples"]["mixopt_grande"]:
        total = float(sample["filtered_resps"][sample["doc"]["gold"]][0])
        theirs.append(-total / len(b" waved back.") / math.log(2))
    assert theirs == pytest.approx(own_bits(model, task), abs=1e-6)


def test_a_task_that_lm_eval_has_no_form_for_is_refused(tmp_path):
    items = [Item("7", ("a", "b"), (" c", " d"), 0)]
    folder = write_tasks(tmp_path / "tasks", odd=items)
    with pytest.raises(ConfigError, match=r"odd\.jsonl: item '7': lm-eval has no form"):
        export_lm_eval_tasks(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
