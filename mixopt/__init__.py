"""How much of each data domain should a language model see? Sweep, fit, propose, sample.

The names below are loaded when they are used, so that `import mixopt` costs next to nothing.
"""

from __future__ import annotations

import sys

if getattr(sys, "argv", [""])[:1] == ["-m"] and not sys.flags.safe_path:
    # `python -m mixopt` would import whatever lies in the directory that it is started in.
    sys.path.pop(0)

from typing import TYPE_CHECKING

from mixopt.errors import (
    ConfigError as ConfigError,
    CorpusError as CorpusError,
    DesignError as DesignError,
    EstimatorError as EstimatorError,
    InfeasibleError as InfeasibleError,
    MixoptError as MixoptError,
    MixtureError as MixtureError,
    PluginError as PluginError,
    RoutingError as RoutingError,
    RunError as RunError,
    SamplerError as SamplerError,
    ShardError as ShardError,
    TrialsError as TrialsError,
)
from mixopt.system.lazy_names import lazy_names
from mixopt.system.version import __version__ as __version__

if TYPE_CHECKING:
    from mixopt import plots as plots
    from mixopt.corpus import Corpus as Corpus
    from mixopt.loading import (
        MixtureDataset as MixtureDataset,
        MixtureLoader as MixtureLoader,
        MixtureStream as MixtureStream,
        PackedDocuments as PackedDocuments,
    )
    from mixopt.mixture import Mixture as Mixture
    from mixopt.pipeline import (
        design as design,
        fit as fit,
        load_fit as load_fit,
        prepare as prepare,
        propose as propose,
        report as report,
        run as run,
        sweep as sweep,
        validate as validate,
    )
    from mixopt.pretraining import pretrain as pretrain
    from mixopt.proposals import Proposal as Proposal
    from mixopt.reporting import experts as experts
    from mixopt.run_directory import Run as Run, load_run as load_run
    from mixopt.sampling import MixtureSampler as MixtureSampler
    from mixopt.trials import Trials as Trials
    from mixopt.what_if import explore as explore
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "corpus": ["Corpus"],
            "loading": ["MixtureDataset", "MixtureLoader", "MixtureStream", "PackedDocuments"],
            "mixture": ["Mixture"],
            "pipeline": [
                "design",
                "fit",
                "load_fit",
                "prepare",
                "propose",
                "report",
                "run",
                "sweep",
                "validate",
            ],
            "pretraining": ["pretrain"],
            "proposals": ["Proposal"],
            "reporting": ["experts"],
            "run_directory": ["Run", "load_run"],
            "sampling": ["MixtureSampler"],
            "trials": ["Trials"],
            "what_if": ["explore"],
        },
        packages=["plots"],
    )

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
    "PackedDocuments",
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
    "explore",
    "fit",
    "load_fit",
    "load_run",
    "plots",
    "prepare",
    "pretrain",
    "propose",
    "report",
    "run",
    "sweep",
    "validate",
]
