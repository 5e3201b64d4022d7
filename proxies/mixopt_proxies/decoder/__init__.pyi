from .autotune import members_by_rule as members_by_rule
from .batch_shape import BatchShape as BatchShape
from .batches import (
    TrialBatches as TrialBatches,
    make_pools as make_pools,
    training_shards as training_shards,
)
from .causal_lm import CausalLM as CausalLM
from .compiling import (
    Compile as Compile,
    has_compiler as has_compiler,
    should_compile as should_compile,
)
from .decoder_proxy import DecoderProxy as DecoderProxy
from .device_precision import (
    Precision as Precision,
    resolve_device as resolve_device,
    resolve_precision as resolve_precision,
    thread_limit as thread_limit,
)
from .expert_options import Experts as Experts
from .group_training import (
    GroupTraining as GroupTraining,
    eval_steps as eval_steps,
    steps_of as steps_of,
)
from .held_out_tasks import HeldOutTasks as HeldOutTasks
from .held_out_windows import HeldOutWindows as HeldOutWindows
from .learning_curve import CurveSample as CurveSample, moved_to as moved_to
from .loss import (
    TILE_LOGITS as TILE_LOGITS,
    HeadLoss as HeadLoss,
    dense_losses as dense_losses,
    tile_width as tile_width,
)
from .memory import memory_kept as memory_kept
from .named_sizes import DecoderSize as DecoderSize, make_size as make_size
from .option_checks import check as check, of_kind as of_kind
from .origin import AdamMoments as AdamMoments, StackOrigin as StackOrigin
from .passes import Passes as Passes
from .stack import Decoder as Decoder
from .stacked_adamw import StackedAdamW as StackedAdamW, rate_factor as rate_factor
from .trainer import StackTrainer as StackTrainer
from .trial_results import MemberCourse as MemberCourse, result_of as result_of
from .weights import StackedWeights as StackedWeights
