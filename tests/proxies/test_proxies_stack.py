"""A member of a stack trains as it would alone, and as the same Llama elsewhere does."""

from dataclasses import replace

import pytest
import torch
from mixopt_proxies.decoder import Passes, StackTrainer, make_size
from mixopt_proxies.decoder.causal_lm import transformers_form
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from mixopt.errors import ConfigError
from mixopt.mixture import Mixture
from mixopt.trials import Trial

CPU = torch.device("cpu")
VOCAB = 61
STEPS = 50
# The clip is among the gradient norms of these steps (0.5 to 3), so it acts in some of them.
SIZE = make_size("tiny", width=32, ff=48, sequence_length=16, batch=4, warmup=5, clip=1.0, lr=0.003)


def trainer_of(seeds, size=SIZE, dtype=torch.float32):
    trials = [Trial(f"t{seed}", Mixture({"any": 1.0}), seed=seed) for seed in seeds]
    passes = Passes(size, VOCAB, device=CPU, dtype=dtype, compiled=False)
    return StackTrainer(trials, passes, steps=STEPS)


def tokens_of(seed) -> Tensor:
    """A member's data, (steps, 1, B, T + 1); skewed, so that there is something to learn."""
    generator = torch.Generator().manual_seed(seed)
    shape = (STEPS, 1, SIZE.batch, SIZE.sequence_length + 1)
    return (torch.rand(shape, generator=generator) ** 3 * VOCAB).long()


def trajectory(trainer, seeds, steps=STEPS) -> Tensor:
    data = torch.cat([tokens_of(seed) for seed in seeds], 1)
    for step in range(steps):
        trainer.step(data[step])
    return trainer._losses_SK[:steps]


def llama_with_weights_of(trainer, size) -> LlamaForCausalLM:
    fields, weights = transformers_form(size, trainer.weights.member(0))
    del fields["model_type"]
    model = LlamaForCausalLM(LlamaConfig(**fields, use_cache=False))
    model.load_state_dict(weights)
    return model


def llama_trajectory(model, size, seed) -> Tensor:
    norms = [p for name, p in model.named_parameters() if "norm" in name]
    others = [p for name, p in model.named_parameters() if "norm" not in name]
    groups = [{"params": others, "weight_decay": size.weight_decay}]
    groups += [{"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=size.lr, betas=size.betas)
    losses = []
    for step, batch in enumerate(tokens_of(seed)[:, 0]):
        for group in optimizer.param_groups:
            group["lr"] = size.lr * size.rates(STEPS).rate(step)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), size.clip)
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def test_a_member_of_a_stack_trains_as_the_same_llama_of_transformers_does_alone():
    size = replace(SIZE, tied=False)
    seeds = [7, 8, 9]
    stacked = trajectory(trainer_of(seeds, size), seeds)
    for k, seed in enumerate(seeds):
        model = llama_with_weights_of(trainer_of([seed], size), size)
        alone = llama_trajectory(model, size, seed)
        assert alone[-1] < alone[0] - 0.3
        torch.testing.assert_close(stacked[:, k], alone, rtol=1e-5, atol=0)


@pytest.mark.parametrize("balance", [0.01, pytest.param(0.0, marks=pytest.mark.nightly)])
def test_a_member_with_experts_trains_the_same_in_a_stack_and_alone(balance):
    shape = {"width": 32, "sequence_length": 16, "batch": 4, "experts": 4, "expert_ff": 24}
    size, seeds = make_size("moe-tiny", **shape, clip=0.1, balance_weight=balance), [1, 2]
    stacked = trajectory(trainer_of(seeds, size), seeds)
    for k, seed in enumerate(seeds):
        alone = trajectory(trainer_of([seed], size), [seed])[:, 0]
        torch.testing.assert_close(stacked[:, k], alone, rtol=1e-5, atol=0)
    assert (stacked[-1] < stacked[0] - 0.2).all()


def test_a_member_that_is_not_finite_disturbs_no_other():
    seeds = [1, 2, 3]
    healthy = trajectory(trainer_of(seeds), seeds, steps=10)
    trainer = trainer_of(seeds)
    trainer.weights.member(1)["0.qkv"].fill_(float("nan"))
    trainer.weights.refresh()
    poisoned = trajectory(trainer, seeds, steps=10)
    assert poisoned[:, 1].isnan().all()
    torch.testing.assert_close(poisoned[:, [0, 2]], healthy[:, [0, 2]], rtol=0, atol=0)


def test_bfloat16_stays_close_to_float32():
    single = trajectory(trainer_of([1]), [1])
    half = trajectory(trainer_of([1], dtype=torch.bfloat16), [1])
    assert half.dtype == torch.float32
    # The measured difference is 0.003; the losses fall by 1.
    torch.testing.assert_close(half, single, rtol=0, atol=0.02)


def test_a_trial_that_is_too_short_for_its_decay_is_named():
    size = make_size("tiny", warmup=8, schedule="wsd", lr_decay=4)
    with pytest.raises(ConfigError, match=r"proxy\.options\.lr_decay: 4 steps of decay after 8"):
        size.check_steps(10)
