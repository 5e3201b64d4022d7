from .causal_lm import CausalLM as CausalLM
from .decoder_proxy import DecoderProxy as DecoderProxy
from .decoder_stack import StackedWeights as StackedWeights, StackOrigin as StackOrigin
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
from .size_options import (
    Above as Above,
    DecoderSize as DecoderSize,
    Flag as Flag,
    Number as Number,
    StepOptions as StepOptions,
    built as built,
    check as check,
    option_errors as option_errors,
)
from .sizes import make_size as make_size
from .stack_trainer import (
    Course as Course,
    StackedAdamW as StackedAdamW,
    StackTrainer as StackTrainer,
)
from .training_passes import Passes as Passes
from .trial_batches import TrialBatches as TrialBatches
