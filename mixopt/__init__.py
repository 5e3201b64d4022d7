"""How much of each data domain should a language model see? Sweep, fit, propose, sample.

The names below are loaded when they are used, so that `import mixopt` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mixopt.errors import (
    ConfigError,
    CorpusError,
    DesignError,
    EstimatorError,
    InfeasibleError,
    MixoptError,
    MixtureError,
    PluginError,
    RoutingError,
    RunError,
    SamplerError,
    ShardError,
    TrialsError,
)

if TYPE_CHECKING:
    from mixopt.corpus import Corpus
    from mixopt.dataset import MixtureDataset
    from mixopt.expert_record.of_run import experts
    from mixopt.loader import MixtureLoader
    from mixopt.mixture import Mixture
    from mixopt.pretraining.run import pretrain
    from mixopt.proposal_file import Proposal
    from mixopt.run_directory import Run, load_run
    from mixopt.sampler import MixtureSampler
    from mixopt.steps import design, fit, prepare, propose, report, run, sweep, validate
    from mixopt.stream import MixtureStream
    from mixopt.trials import Trials

__version__ = "0.1.0"

_LAZY = {
    "Corpus": "mixopt.corpus",
    "Mixture": "mixopt.mixture",
    "MixtureDataset": "mixopt.dataset",
    "MixtureLoader": "mixopt.loader",
    "MixtureSampler": "mixopt.sampler",
    "MixtureStream": "mixopt.stream",
    "Proposal": "mixopt.proposal_file",
    "Run": "mixopt.run_directory",
    "Trials": "mixopt.trials",
    "design": "mixopt.steps",
    "experts": "mixopt.expert_record.of_run",
    "fit": "mixopt.steps",
    "load_run": "mixopt.run_directory",
    "prepare": "mixopt.steps",
    "pretrain": "mixopt.pretraining.run",
    "propose": "mixopt.steps",
    "report": "mixopt.steps",
    "run": "mixopt.steps",
    "sweep": "mixopt.steps",
    "validate": "mixopt.steps",
}

__all__ = [
    "ConfigError",
    "Corpus",
    "CorpusError",
    "DesignError",
    "EstimatorError",
    "InfeasibleError",
    "MixoptError",
    "Mixture",
    "MixtureDataset",
    "MixtureError",
    "MixtureLoader",
    "MixtureSampler",
    "MixtureStream",
    "PluginError",
    "Proposal",
    "RoutingError",
    "Run",
    "RunError",
    "SamplerError",
    "ShardError",
    "Trials",
    "TrialsError",
    "design",
    "experts",
    "fit",
    "load_run",
    "prepare",
    "pretrain",
    "propose",
    "report",
    "run",
    "sweep",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'mixopt' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
