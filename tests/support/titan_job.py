"""torchtitan's own trainer on a CPU, for test_torchtitan."""

import collections
import importlib
import sys
import types
from dataclasses import dataclass, fields

import torch

LENGTH = 16
ROWS = 2  # rows of a rank that are read at once


def on_cpu():
    """Let torchtitan take the CPU for its accelerator, which it does not of itself."""
    torch._utils._get_available_device_type = lambda: "cpu"
    from torchtitan.tools import utils

    assert utils.device_type == "cpu"
    torch.cpu.memory_stats = lambda *_: collections.defaultdict(int)
    for name in ("reset_peak_memory_stats", "empty_cache"):
        setattr(torch.cpu, name, lambda *_: None)
    utils_of_jobs = importlib.import_module("torchtitan.distributed.utils")
    utils_of_jobs.set_pg_timeouts = lambda **_: None  # its barrier is for a numbered device
    torch.cpu.get_device_name = lambda *_: "CPU"
    torch.cpu.get_device_properties = lambda *_: types.SimpleNamespace(total_memory=1 << 30)


def dense_attention():
    """Put attention with a dense mask in the place of FlexAttention, which has no CPU backward.

    The mask is the trainer's own, made of the positions that it was fed.
    """
    from torch.nn.attention.flex_attention import create_block_mask, create_mask
    from torchtitan.models.common import attention

    def attend(q, k, v, *, block_mask, scale, enable_gqa, **_):
        sizes = q.shape[0], 1, q.shape[2], k.shape[2]
        mask = create_mask(block_mask.mask_mod, *sizes, device="cpu")
        scaled = torch.nn.functional.scaled_dot_product_attention
        out = scaled(q, k, v, attn_mask=mask, scale=scale, enable_gqa=enable_gqa)
        return out, None

    attention.FlexAttention._compiled_flex_attn = staticmethod(attend)
    attention._compiled_create_block_mask = create_block_mask


def config_of(corpus, out, steps, replicas, tensor):
    from torchtitan.components.checkpointer import CheckpointManager
    from torchtitan.components.loss import CrossEntropyLoss
    from torchtitan.components.optimizer import default_adamw
    from torchtitan.components.tokenizer import BaseTokenizer
    from torchtitan.config import ParallelismConfig, TrainingConfig
    from torchtitan.models.llama3 import model_registry
    from torchtitan.trainer import Trainer

    from mixopt.integrations.torchtitan import MixtureDataLoader

    class Numbers(BaseTokenizer):
        """Rows are tokens already."""

        @dataclass(kw_only=True, slots=True)
        class Config(BaseTokenizer.Config):
            pass

        def __init__(self, config, **_):
            super().__init__()

        encode = decode = None

        def get_vocab_size(self):
            return 2048

    spec = model_registry("debugmodel")
    spec.model.layers = spec.model.layers[:1]
    sizes = {"seq_len": LENGTH, "local_batch_size": ROWS, "global_batch_size": 8}
    if "seq_len" not in {field.name for field in fields(TrainingConfig)}:
        names = "max_context_length", "num_tokens_per_microbatch_per_dp_rank"
        sizes = dict(zip(names, (LENGTH, ROWS * LENGTH), strict=True))
        sizes["num_tokens_per_train_step"] = 8 * LENGTH
    return Trainer.Config(
        model_spec=spec,
        loss=CrossEntropyLoss.Config(global_vocab_size=2048),
        tokenizer=Numbers.Config(),
        dump_folder=str(out),
        optimizer=default_adamw(lr=8e-4),
        training=TrainingConfig(steps=steps, disable_cuda_graphs=True, **sizes),
        dataloader=MixtureDataLoader.Config(
            corpus=str(corpus), mixture=str(corpus / "mixture.yaml"), document_end=0
        ),
        parallelism=ParallelismConfig(
            data_parallel_replicate_degree=replicas, tensor_parallel_degree=tensor
        ),
        checkpoint=CheckpointManager.Config(
            enable=True, interval=3, last_save_model_only=False, folder="checkpoint"
        ),
    )


def trained(library, *sizes):
    """Train; return this rank's part, and what each step was given."""
    if library:  # the folder of another torchtitan
        sys.path.insert(0, str(library))
    fed = []
    on_cpu()
    dense_attention()
    trainer = config_of(*sizes).build()
    step = trainer.forward_backward_step

    def seen(*, input_dict, labels, **rest):
        batch = {**input_dict, "labels": labels}
        fed.append([trainer.step, {name: value.tolist() for name, value in batch.items()}])
        return step(input_dict=input_dict, labels=labels, **rest)

    trainer.forward_backward_step = seen
    trainer.train()
    sampler = trainer.dataloader.mixture.sampler
    trainer.close()
    return {"part": [sampler.rank, sampler.world_size], "fed": fed}
