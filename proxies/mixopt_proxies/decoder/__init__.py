"""A Llama-style decoder, optionally with experts, that trains several trials together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt_proxies.decoder.autotune import members_by_rule as members_by_rule
    from mixopt_proxies.decoder.batch_shape import BatchShape as BatchShape
    from mixopt_proxies.decoder.batches import (
        TrialBatches as TrialBatches,
        make_pools as make_pools,
        training_shards as training_shards,
    )
    from mixopt_proxies.decoder.causal_lm import CausalLM as CausalLM
    from mixopt_proxies.decoder.compiling import (
        Compile as Compile,
        has_compiler as has_compiler,
        should_compile as should_compile,
    )
    from mixopt_proxies.decoder.decoder_proxy import DecoderProxy as DecoderProxy
    from mixopt_proxies.decoder.device_precision import (
        Precision as Precision,
        resolve_device as resolve_device,
        resolve_precision as resolve_precision,
        thread_limit as thread_limit,
    )
    from mixopt_proxies.decoder.expert_options import Experts as Experts
    from mixopt_proxies.decoder.group_training import (
        GroupTraining as GroupTraining,
        eval_steps as eval_steps,
        steps_of as steps_of,
    )
    from mixopt_proxies.decoder.held_out_tasks import HeldOutTasks as HeldOutTasks
    from mixopt_proxies.decoder.held_out_windows import HeldOutWindows as HeldOutWindows
    from mixopt_proxies.decoder.learning_curve import (
        CurveSample as CurveSample,
        moved_to as moved_to,
    )
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
    from mixopt_proxies.decoder.option_checks import check as check, of_kind as of_kind
    from mixopt_proxies.decoder.origin import (
        AdamMoments as AdamMoments,
        StackOrigin as StackOrigin,
    )
    from mixopt_proxies.decoder.passes import Passes as Passes
    from mixopt_proxies.decoder.stack import Decoder as Decoder
    from mixopt_proxies.decoder.stacked_adamw import (
        StackedAdamW as StackedAdamW,
        rate_factor as rate_factor,
    )
    from mixopt_proxies.decoder.trainer import StackTrainer as StackTrainer
    from mixopt_proxies.decoder.trial_results import (
        MemberCourse as MemberCourse,
        result_of as result_of,
    )
    from mixopt_proxies.decoder.weights import StackedWeights as StackedWeights
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "autotune": ["members_by_rule"],
            "batch_shape": ["BatchShape"],
            "batches": ["TrialBatches", "make_pools", "training_shards"],
            "causal_lm": ["CausalLM"],
            "compiling": ["Compile", "has_compiler", "should_compile"],
            "decoder_proxy": ["DecoderProxy"],
            "device_precision": [
                "Precision",
                "resolve_device",
                "resolve_precision",
                "thread_limit",
            ],
            "expert_options": ["Experts"],
            "group_training": ["GroupTraining", "eval_steps", "steps_of"],
            "held_out_tasks": ["HeldOutTasks"],
            "held_out_windows": ["HeldOutWindows"],
            "learning_curve": ["CurveSample", "moved_to"],
            "loss": ["TILE_LOGITS", "HeadLoss", "dense_losses", "tile_width"],
            "memory": ["memory_kept"],
            "named_sizes": ["DecoderSize", "make_size"],
            "option_checks": ["check", "of_kind"],
            "origin": ["AdamMoments", "StackOrigin"],
            "passes": ["Passes"],
            "stack": ["Decoder"],
            "stacked_adamw": ["StackedAdamW", "rate_factor"],
            "trainer": ["StackTrainer"],
            "trial_results": ["MemberCourse", "result_of"],
            "weights": ["StackedWeights"],
        },
    )
