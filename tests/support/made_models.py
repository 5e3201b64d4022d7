"""Models that nobody trained, for tests of what is read and written of models."""

import torch
from mixopt_proxies.decoder import CausalLM

from mixopt.corpus import open_tokenizer
from mixopt.pretraining.config import ModelConfig
from mixopt.pretraining.models import build_model
from mixopt.pretraining.trained_model import write_export

LENGTH = 32
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
SMALL = {
    "llama": SHAPE | {"intermediate_size": 48, "num_key_value_heads": 1},
    "olmoe": SHAPE | {"intermediate_size": 32, "num_key_value_heads": 2} | EXPERTS,
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": LENGTH},
}


class Formless(CausalLM):
    """A plug-in without a form in transformers."""

    transformers_form = None


class Misshapen(CausalLM):
    """A plug-in whose form in transformers computes something else."""

    def transformers_form(self):
        values, weights = super().transformers_form()
        return values | {"rms_norm_eps": 0.1}, weights


def made_model(name, options, vocab_size=257):
    """Build a model every weight and saved buffer of which is random, norms and biases too."""
    kind = ModelConfig(name=name, options=options or SMALL.get(name, {}))
    model = build_model(kind, vocab_size=vocab_size, sequence_length=LENGTH, seed=1)
    draw = torch.Generator().manual_seed(2)
    saved = model.state_dict()
    for place, weight in [*model.named_parameters(), *model.named_buffers()]:
        if place in saved:
            weight.data.add_(torch.randn(weight.shape, generator=draw), alpha=0.05)
    return model.eval()


def exported(model, out, tokenizer=None):
    """Export a model as if it were read from a checkpoint."""
    return write_export(model, tokenizer or open_tokenizer("bytes"), LENGTH, out, "step-00000001")


def logits_of(model, tokens):
    with torch.no_grad():
        output = model(tokens)
    return output if isinstance(output, torch.Tensor) else output.logits
