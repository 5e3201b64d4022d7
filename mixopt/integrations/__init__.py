"""The loader and the online driver inside other people's frameworks, and mixtures in their form.

Each module needs its framework: transformers' Trainer, Lightning, torch.distributed.checkpoint,
torchdata, torchtitan, Megatron-Core, lm-eval. `exports` writes and reads configurations of trainers
and needs none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.integrations.dcp import MixtureState as MixtureState
    from mixopt.integrations.exports import (
        EXPORT_TOOLS as EXPORT_TOOLS,
        ExportTool as ExportTool,
        export_mixture as export_mixture,
        export_schedule as export_schedule,
        import_mixture as import_mixture,
    )
    from mixopt.integrations.hf_online import OnlineTrainer as OnlineTrainer
    from mixopt.integrations.hf_trainer import MixtureTrainer as MixtureTrainer
    from mixopt.integrations.lightning import MixtureDataModule as MixtureDataModule
    from mixopt.integrations.lm_eval import MixoptLM as MixoptLM
    from mixopt.integrations.lm_eval_tasks import export_lm_eval_tasks as export_lm_eval_tasks
    from mixopt.integrations.megatron import (
        MegatronMixture as MegatronMixture,
        epochs_of as epochs_of,
    )
    from mixopt.integrations.torchdata import StatefulMixtureLoader as StatefulMixtureLoader
    from mixopt.integrations.torchtitan import MixtureDataLoader as MixtureDataLoader
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "dcp": ["MixtureState"],
            "exports": [
                "EXPORT_TOOLS",
                "ExportTool",
                "export_mixture",
                "export_schedule",
                "import_mixture",
            ],
            "hf_online": ["OnlineTrainer"],
            "hf_trainer": ["MixtureTrainer"],
            "lightning": ["MixtureDataModule"],
            "lm_eval": ["MixoptLM"],
            "lm_eval_tasks": ["export_lm_eval_tasks"],
            "megatron": ["MegatronMixture", "epochs_of"],
            "torchdata": ["StatefulMixtureLoader"],
            "torchtitan": ["MixtureDataLoader"],
        },
    )
