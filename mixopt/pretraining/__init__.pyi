from .config import (
    ModelConfig as ModelConfig,
    PretrainConfig as PretrainConfig,
    VocabularyConfig as VocabularyConfig,
    load_pretraining as load_pretraining,
)
from .directory import verify_pretraining as verify_pretraining
from .model_start import (
    ModelOrigin as ModelOrigin,
    field_named as field_named,
    open_origin as open_origin,
)
from .models import (
    build_model as build_model,
    document_positions as document_positions,
    has_bfloat16 as has_bfloat16,
)
from .pretraining_run import pretrain as pretrain
from .trained_model import (
    export_model as export_model,
    score_tasks as score_tasks,
    scores_text as scores_text,
)
from .training_step import (
    DocumentMasks as DocumentMasks,
    added_loss as added_loss,
    make_optimizer as make_optimizer,
    token_losses as token_losses,
)
