from .causal_lm import CausalLM as CausalLM
from .decoder_proxy import DecoderProxy as DecoderProxy
from .decoder_stack import (
    AdamMoments as AdamMoments,
    StackedWeights as StackedWeights,
    StackOrigin as StackOrigin,
)
from .devices import (
    has_compiler as has_compiler,
    memory_kept as memory_kept,
    resolve_device as resolve_device,
    resolve_precision as resolve_precision,
    should_compile as should_compile,
    thread_limit as thread_limit,
)
from .group_training import (
    GroupTraining as GroupTraining,
    TrialTraining as TrialTraining,
    Tuner as Tuner,
    members_by_rule as members_by_rule,
)
from .sizes import (
    Compile as Compile,
    DecoderSize as DecoderSize,
    Precision as Precision,
    check as check,
    check_choices as check_choices,
    check_least as check_least,
    checked_options as checked_options,
    make_size as make_size,
)
from .stack_trainer import (
    Course as Course,
    StackedAdamW as StackedAdamW,
    StackTrainer as StackTrainer,
)
from .training_passes import (
    Passes as Passes,
)
from .trial_batches import (
    TrialBatches as TrialBatches,
)
