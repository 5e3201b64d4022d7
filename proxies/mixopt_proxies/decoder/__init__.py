"""A Llama-style decoder, optionally with experts, that trains several trials together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt_proxies.decoder.autotune import members_by_rule as members_by_rule
    from mixopt_proxies.decoder.batches import TrialBatches as TrialBatches
    from mixopt_proxies.decoder.causal_lm import CausalLM as CausalLM
    from mixopt_proxies.decoder.compiling import (
        has_compiler as has_compiler,
        should_compile as should_compile,
    )
    from mixopt_proxies.decoder.decoder_proxy import DecoderProxy as DecoderProxy
    from mixopt_proxies.decoder.device_precision import (
        resolve_device as resolve_device,
        resolve_precision as resolve_precision,
    )
    from mixopt_proxies.decoder.expert_options import Experts as Experts
    from mixopt_proxies.decoder.held_out_tasks import HeldOutTasks as HeldOutTasks
    from mixopt_proxies.decoder.held_out_windows import HeldOutWindows as HeldOutWindows
    from mixopt_proxies.decoder.loss import (
        TILE_LOGITS as TILE_LOGITS,
        HeadLoss as HeadLoss,
        dense_losses as dense_losses,
        tile_width as tile_width,
    )
    from mixopt_proxies.decoder.memory import memory_kept as memory_kept
    from mixopt_proxies.decoder.named_sizes import (
        DecoderSize as DecoderSize,
        make_size as make_size,
    )
    from mixopt_proxies.decoder.passes import Passes as Passes
    from mixopt_proxies.decoder.stack import Decoder as Decoder
    from mixopt_proxies.decoder.stacked_adamw import (
        StackedAdamW as StackedAdamW,
        rate_factor as rate_factor,
    )
    from mixopt_proxies.decoder.trainer import StackTrainer as StackTrainer
    from mixopt_proxies.decoder.weights import StackedWeights as StackedWeights
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "autotune": ["members_by_rule"],
            "batches": ["TrialBatches"],
            "causal_lm": ["CausalLM"],
            "compiling": ["has_compiler", "should_compile"],
            "decoder_proxy": ["DecoderProxy"],
            "device_precision": ["resolve_device", "resolve_precision"],
            "expert_options": ["Experts"],
            "held_out_tasks": ["HeldOutTasks"],
            "held_out_windows": ["HeldOutWindows"],
            "loss": ["TILE_LOGITS", "HeadLoss", "dense_losses", "tile_width"],
            "memory": ["memory_kept"],
            "named_sizes": ["DecoderSize", "make_size"],
            "passes": ["Passes"],
            "stack": ["Decoder"],
            "stacked_adamw": ["StackedAdamW", "rate_factor"],
            "trainer": ["StackTrainer"],
            "weights": ["StackedWeights"],
        },
    )
