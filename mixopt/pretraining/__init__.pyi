from .balance import ExpertBalance as ExpertBalance, balance_alone as balance_alone
from .batches import StreamedText as StreamedText
from .checkpoints import Checkpoints as Checkpoints
from .config import PretrainConfig as PretrainConfig, load_pretraining as load_pretraining
from .directory import (
    is_pretraining as is_pretraining,
    recorded_pretraining as recorded_pretraining,
    verify_pretraining as verify_pretraining,
)
from .document_masks import DocumentMasks as DocumentMasks, check_apart as check_apart
from .model_export import (
    ModelExport as ModelExport,
    export_lines as export_lines,
    export_model as export_model,
)
from .model_start import (
    ModelOrigin as ModelOrigin,
    open_origin as open_origin,
    recipe_fingerprint as recipe_fingerprint,
)
from .models import build_model as build_model
from .pretraining_run import pretrain as pretrain, result_lines as result_lines
from .ranks import joined as joined
from .trained_model import (
    TaskScores as TaskScores,
    TrainedModel as TrainedModel,
    score_tasks as score_tasks,
    scores_text as scores_text,
)
from .training_config import ModelConfig as ModelConfig
from .training_step import (
    ADAM_EPS as ADAM_EPS,
    decay_groups as decay_groups,
    token_losses as token_losses,
)
