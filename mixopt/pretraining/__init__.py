"""Pretrain a causal language model on a mixture that may change while it trains.

`mixopt pretrain CONFIG --out DIR`, on several processes `torchrun --nproc-per-node N -m mixopt
pretrain CONFIG --out DIR`. torch is imported by what needs it only; `mixopt.pretraining.text` is
where the rows come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.pretraining.balance_choice import (
        balance_alone as balance_alone,
    )
    from mixopt.pretraining.checkpoint_folder import (
        Beside as Beside,
        Retention as Retention,
    )
    from mixopt.pretraining.checkpoints import (
        Checkpoints as Checkpoints,
    )
    from mixopt.pretraining.config import (
        PretrainConfig as PretrainConfig,
        load_pretraining as load_pretraining,
    )
    from mixopt.pretraining.directory import (
        recorded_pretraining as recorded_pretraining,
    )
    from mixopt.pretraining.document_masks import (
        DocumentMasks as DocumentMasks,
        check_apart as check_apart,
    )
    from mixopt.pretraining.expert_balance import (
        ExpertBalance as ExpertBalance,
    )
    from mixopt.pretraining.model_config import (
        ModelConfig as ModelConfig,
    )
    from mixopt.pretraining.model_export import (
        ModelExport as ModelExport,
        export_lines as export_lines,
        export_model as export_model,
    )
    from mixopt.pretraining.model_origin import (
        ModelOrigin as ModelOrigin,
        open_origin as open_origin,
    )
    from mixopt.pretraining.models import (
        build_model as build_model,
    )
    from mixopt.pretraining.optimizer import (
        ADAM_EPS as ADAM_EPS,
        decay_groups as decay_groups,
        learning_rate as learning_rate,
    )
    from mixopt.pretraining.parallel import (
        ParallelModel as ParallelModel,
    )
    from mixopt.pretraining.pretraining_run import (
        pretrain as pretrain,
    )
    from mixopt.pretraining.ranks import (
        joined as joined,
    )
    from mixopt.pretraining.recipe_hash import (
        recipe_fingerprint as recipe_fingerprint,
    )
    from mixopt.pretraining.result import (
        result_lines as result_lines,
    )
    from mixopt.pretraining.sharded_start import (
        starting_model as starting_model,
    )
    from mixopt.pretraining.task_scoring import (
        TaskScores as TaskScores,
        score_tasks as score_tasks,
        scores_text as scores_text,
    )
    from mixopt.pretraining.text.stream_input import (
        StreamedText as StreamedText,
        prepare_streams as prepare_streams,
        rows_of as rows_of,
    )
    from mixopt.pretraining.trained_model import (
        TrainedModel as TrainedModel,
    )
    from mixopt.pretraining.verification import (
        is_pretraining as is_pretraining,
        verify_pretraining as verify_pretraining,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "balance_choice": ["balance_alone"],
            "checkpoint_folder": ["Beside", "Retention"],
            "checkpoints": ["Checkpoints"],
            "config": ["PretrainConfig", "load_pretraining"],
            "directory": ["recorded_pretraining"],
            "document_masks": ["DocumentMasks", "check_apart"],
            "expert_balance": ["ExpertBalance"],
            "model_config": ["ModelConfig"],
            "model_export": ["ModelExport", "export_lines", "export_model"],
            "model_origin": ["ModelOrigin", "open_origin"],
            "models": ["build_model"],
            "optimizer": ["ADAM_EPS", "decay_groups", "learning_rate"],
            "parallel": ["ParallelModel"],
            "pretraining_run": ["pretrain"],
            "ranks": ["joined"],
            "recipe_hash": ["recipe_fingerprint"],
            "result": ["result_lines"],
            "sharded_start": ["starting_model"],
            "task_scoring": ["TaskScores", "score_tasks", "scores_text"],
            "text.stream_input": ["StreamedText", "prepare_streams", "rows_of"],
            "trained_model": ["TrainedModel"],
            "verification": ["is_pretraining", "verify_pretraining"],
        },
    )
