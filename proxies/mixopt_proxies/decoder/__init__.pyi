from .causal_lm import CausalLM as CausalLM
from .decoder_proxy import DecoderProxy as DecoderProxy
from .decoder_stack import (
    AdamMoments as AdamMoments,
    Decoder as Decoder,
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
    members_by_rule as members_by_rule,
)
from .held_out_loss import (
    Evaluations as Evaluations,
    HeldOutTasks as HeldOutTasks,
    HeldOutWindows as HeldOutWindows,
    moved_to as moved_to,
    steps_of as steps_of,
)
from .sizes import (
    Compile as Compile,
    DecoderSize as DecoderSize,
    Experts as Experts,
    Precision as Precision,
    check as check,
    make_size as make_size,
    of_kind as of_kind,
)
from .stack_trainer import (
    MemberCourse as MemberCourse,
    StackedAdamW as StackedAdamW,
    StackTrainer as StackTrainer,
    result_of as result_of,
)
from .training_passes import (
    TILE_LOGITS as TILE_LOGITS,
    HeadLoss as HeadLoss,
    Passes as Passes,
    dense_losses as dense_losses,
    tile_width as tile_width,
)
from .trial_batches import (
    TrialBatches as TrialBatches,
    pools_of as pools_of,
)
