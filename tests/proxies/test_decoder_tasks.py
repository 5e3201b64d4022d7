"""Tasks that the stacked decoder scores: against the slow way, and alike in any company."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from mixopt_proxies.decoder import DecoderProxy, make_size
from mixopt_proxies.decoder.held_out_loss import Evaluations
from mixopt_proxies.decoder.training_passes import Passes

from mixopt.corpus import Item, encode_task, open_tokenizer
from mixopt.corpus.tasks import row_windows
from mixopt.mixture import Mixture
from mixopt.sweeps import Training
from mixopt.testing import check_proxy, tiny_corpus
from mixopt.trials import Trial

CPU = torch.device("cpu")
SHAPE = {"layers": 2, "width": 32, "heads": 2, "sequence_length": 160, "batch": 4}
SMALL = SHAPE | {"ff": 64}
DENSE, EXPERTS = make_size("tiny", **SMALL), make_size("moe-tiny", **SHAPE, expert_ff=32)
TRAINING = Training(tokens=3840, eval_tokens=2048, eval_every=1920, device="cpu")
TRIALS = [
    Trial(f"t{share}", Mixture({"code": share, "manual": 1 - share}), seed=seed)
    for seed, share in enumerate((0.2, 0.5))
]


def some_tasks():
    """Items with short and long contexts, a gold longer than the window, and an empty context."""
    text = "Zürich liegt am See; naïve cafés — 数学 and more. " * 12
    items = [
        Item("short", "Question:", " no"),
        Item("long", text, " ∀ε>0 …"),
        Item("none", "", "First"),
        *(Item(f"n{n}", text[: 7 * n], text[7 * n :][:9]) for n in range(1, 30)),
    ]
    long = [Item("pieces", text[:90], " " + text[:500]), Item("a", "b", " c", 2.0)]
    tokenizer = open_tokenizer("bytes")
    return (encode_task("short", items, tokenizer), encode_task("long", long, tokenizer))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return replace(tiny_corpus(tmp_path_factory.mktemp("tiny") / "corpus"), tasks=some_tasks())


def slowly(task, size, passes, weights, member) -> float:
    """Each window alone, padded to the whole length, all logits, in float64 from there."""
    length = size.sequence_length
    sums_R = np.zeros(task.rows)
    rows = ((r, task.row(r), int(task.scored_R[r])) for r in range(task.rows))
    for window in (item for row in rows for item in row_windows(*row, length)):
        tokens = torch.zeros(weights.members, 1, length + 1, dtype=torch.long)
        tokens[..., : len(window.tokens)] = torch.from_numpy(window.tokens.astype(np.int64))
        hidden, _ = passes._decoder.hidden(weights.leaves, tokens)
        logits = (
            hidden[member].detach().double() @ weights.leaves["head"][member].detach().double().T
        )
        log = logits.log_softmax(-1)
        for place in range(window.scored, len(window.tokens)):
            sums_R[window.row] += float(log[place - 1, int(window.tokens[place])])
    return task.bits_per_byte(sums_R)


@pytest.mark.parametrize(("size", "vocab"), [(DENSE, 4096), (EXPERTS, 300)])
def test_scores_equal_those_of_one_window_at_a_time(corpus, size, vocab):
    passes = Passes(size, vocab, device=CPU, dtype=torch.float32, compiled=False)
    weights = passes.weights([0, 1])
    assert passes.chunked == (vocab == 4096)
    held_out = Evaluations(corpus, size.sequence_length, size.batch, TRAINING, CPU)
    found = held_out.task_scores(partial(passes.token_losses, weights.leaves), weights.members)
    for member in range(2):
        for task in corpus.tasks:
            slow = slowly(task, size, passes, weights, member)
            assert found[member][task.column] == pytest.approx(slow, abs=1e-5)


def test_tasks_change_nothing_of_training(corpus):
    def losses(tasks):
        proxy = DecoderProxy(**SMALL, precision="float32", compile=False)
        result = proxy.train(TRIALS, replace(corpus, tasks=tasks), TRAINING, lambda _: None)
        return [item.losses for item in result]

    with_tasks, without = losses(corpus.tasks), losses(())
    assert [item.nats_per_token for item in with_tasks] == [item.nats_per_token for item in without]
    assert all(item.tasks == {} for item in without)


def test_the_decoder_keeps_the_promises_of_a_proxy_that_scores_tasks():
    check_proxy(lambda: DecoderProxy(**SMALL, precision="float32", compile=False), tokens=8192)
