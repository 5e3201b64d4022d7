from .balance_choice import balance_alone as balance_alone
from .checkpoint_folder import Beside as Beside, Retention as Retention
from .checkpoints import Checkpoints as Checkpoints
from .config import PretrainConfig as PretrainConfig, load_pretraining as load_pretraining
from .directory import recorded_pretraining as recorded_pretraining
from .document_masks import DocumentMasks as DocumentMasks, check_apart as check_apart
from .expert_balance import ExpertBalance as ExpertBalance
from .model_config import ModelConfig as ModelConfig
from .model_export import (
    ModelExport as ModelExport,
    export_lines as export_lines,
    export_model as export_model,
)
from .model_origin import ModelOrigin as ModelOrigin, open_origin as open_origin
from .models import build_model as build_model
from .optimizer import (
    ADAM_EPS as ADAM_EPS,
    decay_groups as decay_groups,
    learning_rate as learning_rate,
)
from .parallel import ParallelModel as ParallelModel
from .pretraining_run import pretrain as pretrain
from .ranks import joined as joined
from .recipe_hash import recipe_fingerprint as recipe_fingerprint
from .result import result_lines as result_lines
from .sharded_start import starting_model as starting_model
from .task_scoring import (
    TaskScores as TaskScores,
    score_tasks as score_tasks,
    scores_text as scores_text,
)
from .text.stream_input import (
    StreamedText as StreamedText,
    prepare_streams as prepare_streams,
    rows_of as rows_of,
)
from .trained_model import TrainedModel as TrainedModel
from .verification import is_pretraining as is_pretraining, verify_pretraining as verify_pretraining
