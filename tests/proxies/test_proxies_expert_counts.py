"""What experts of proxies are given is counted exactly, in training and on held-out text."""

import pytest
import torch
from mixopt_proxies.decoder import DecoderProxy, Passes, StackTrainer, TrialBatches

from mixopt.mixture import Mixture
from mixopt.trials import Training, Trial

CPU = torch.device("cpu")
SMALL = {"width": 32, "sequence_length": 16, "batch": 4, "experts": 4, "expert_ff": 24}
OPTIONS = {**SMALL, "size": "moe-tiny", "precision": "float32", "compile": False}
STEPS = 41
EVEN = Mixture({"code": 0.5, "manual": 0.5})
TRAINING = Training(tokens=64 * STEPS, eval_tokens=16 * 20, device="cpu")


@pytest.fixture(scope="module")
def trained(corpus):
    mixtures = [Mixture({"code": share, "manual": 1 - share}) for share in (0.5, 0.9)]
    trials = [Trial(f"t{k}", mixture, k) for k, mixture in enumerate(mixtures)]
    return trials, DecoderProxy(**OPTIONS).train(trials, corpus, TRAINING, lambda _: None)


def trainer_of(trials, corpus):
    size = DecoderProxy(**OPTIONS).size
    passes = Passes(size, corpus.vocab_size, device=CPU, dtype=torch.float32, compiled=False)
    return StackTrainer(trials, passes, steps=STEPS)


def brute_force(trials, corpus):
    """Train again by hand, and count the second half of the steps token by token."""
    trainer = trainer_of(trials, corpus)
    passes = trainer._passes
    batches = TrialBatches(trials, corpus, Training(STEPS * 64), batch=4, length=16)
    seen, block = [], passes._decoder.block

    def listening(*given):
        stream, choice = block(*given)
        seen.append(choice.ids_KNS)
        return stream, choice

    passes._decoder.block = listening
    counts = torch.zeros(2, 2, 2, 4, dtype=torch.int64)  # member, layer, domain, expert
    for taken, tokens in trainer.stream(batches):
        seen.clear()
        trainer.step(tokens)
        for layer, ids_KNS in enumerate(seen):
            for k in range(2):
                for n, ids in enumerate(ids_KNS[k]):
                    domain = batches.domain_KS[k, 4 * taken + n // 16]
                    counts[k, layer, domain, ids] += taken >= 20
    return counts


def test_counts_of_training_are_those_of_a_loop_over_tokens(trained, corpus):
    trials, results = trained
    expected = brute_force(trials, corpus)
    for k, result in enumerate(results):
        assert result.experts.train.domains == ("code", "manual")
        for number, layer in enumerate(result.experts.train.layers):
            assert layer.layer == number
            assert layer.counts_DE.tolist() == expected[k, number].tolist()


def test_held_out_counts_are_those_of_the_models_at_the_end(trained, corpus):
    trials, results = trained
    trainer = trainer_of(trials, corpus)
    passes = trainer._passes
    batches = TrialBatches(trials, corpus, Training(STEPS * 64), batch=4, length=16)
    for _step, tokens in trainer.stream(batches):
        trainer.step(tokens)
    rows = torch.from_numpy(corpus.domains[1].validation.rows([16 * i for i in range(4)], 17) * 1)
    _, routed = passes.evaluated(trainer.weights.leaves, rows.long().expand(2, -1, -1).contiguous())
    few = Training(tokens=64 * STEPS, eval_tokens=16 * 4, device="cpu")
    again = DecoderProxy(**OPTIONS).train(trials, corpus, few, lambda _: None)
    for k, result in enumerate(again):
        for number, layer in enumerate(result.experts.held_out.layers):
            found = layer.counts_DE[1].tolist()
            assert found == routed.counts_LKBE[number, k].sum(0).tolist()
    assert again[0].losses.nats_per_token != results[0].losses.nats_per_token  # other text
