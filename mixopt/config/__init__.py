"""The experiment's YAML as checked values that know their file and line.

`Config` is one experiment; a field that is unknown, of the wrong type or out of range is an error
that names file, field and line. What only the corpus can tell is checked when that is open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.config.absent_text import absent_texts as absent_texts
    from mixopt.config.anneals_section import AnnealsConfig as AnnealsConfig
    from mixopt.config.constraints_section import ConstraintsConfig as ConstraintsConfig
    from mixopt.config.corpus_section import (
        WHERE as WHERE,
        CorpusConfig as CorpusConfig,
        DomainConfig as DomainConfig,
        MixedConfig as MixedConfig,
        SourceConfig as SourceConfig,
    )
    from mixopt.config.design_section import (
        Anchor as Anchor,
        DesignConfig as DesignConfig,
    )
    from mixopt.config.experiment import (
        Config as Config,
        FitConfig as FitConfig,
        ProposeConfig as ProposeConfig,
        RiskConfig as RiskConfig,
        TrackingConfig as TrackingConfig,
    )
    from mixopt.config.experiment_file import (
        dump_config as dump_config,
        load_config as load_config,
        plugins_named as plugins_named,
        unusable_names as unusable_names,
    )
    from mixopt.config.given_values import (
        checked as checked,
        one_of as one_of,
        read_constraints as read_constraints,
        read_inventory as read_inventory,
        read_objective as read_objective,
        token_count as token_count,
    )
    from mixopt.config.loss_choice import chosen_losses as chosen_losses
    from mixopt.config.names_of_domains import RESERVED as RESERVED
    from mixopt.config.objective_section import ObjectiveConfig as ObjectiveConfig
    from mixopt.config.section import (
        FILES as FILES,
        Count as Count,
        Positive as Positive,
        Section as Section,
        Share as Share,
    )
    from mixopt.config.starting_point import is_recipe as is_recipe
    from mixopt.config.stated_sizes import (
        stated_tokens as stated_tokens,
        with_stated_sizes as with_stated_sizes,
    )
    from mixopt.config.store_urls import (
        experiment_urls as experiment_urls,
        source_urls as source_urls,
        url_faults as url_faults,
    )
    from mixopt.config.task_names import (
        HIGHER as HIGHER,
        OF_CHOICES as OF_CHOICES,
        TASK as TASK,
        task_column as task_column,
        task_metric as task_metric,
    )
    from mixopt.config.tasks_section import (
        Metric as Metric,
        Normalisation as Normalisation,
        TasksConfig as TasksConfig,
        TaskSetConfig as TaskSetConfig,
    )
    from mixopt.config.validation_section import (
        BaselineConfig as BaselineConfig,
        ValidateConfig as ValidateConfig,
    )
    from mixopt.config.yaml_sections import (
        Location as Location,
        dump_sections as dump_sections,
        read_sections as read_sections,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "absent_text": ["absent_texts"],
            "anneals_section": ["AnnealsConfig"],
            "constraints_section": ["ConstraintsConfig"],
            "corpus_section": [
                "WHERE",
                "CorpusConfig",
                "SourceConfig",
                "DomainConfig",
                "MixedConfig",
            ],
            "design_section": ["Anchor", "DesignConfig"],
            "experiment": [
                "Config",
                "FitConfig",
                "ProposeConfig",
                "RiskConfig",
                "TrackingConfig",
            ],
            "loss_choice": ["chosen_losses"],
            "names_of_domains": ["RESERVED"],
            "objective_section": ["ObjectiveConfig"],
            "section": ["FILES", "Count", "Positive", "Section", "Share"],
            "experiment_file": [
                "dump_config",
                "load_config",
                "plugins_named",
                "unusable_names",
            ],
            "given_values": [
                "checked",
                "one_of",
                "read_constraints",
                "read_inventory",
                "read_objective",
                "token_count",
            ],
            "task_names": ["HIGHER", "OF_CHOICES", "TASK", "task_column", "task_metric"],
            "tasks_section": ["Metric", "Normalisation", "TaskSetConfig", "TasksConfig"],
            "validation_section": ["BaselineConfig", "ValidateConfig"],
            "starting_point": ["is_recipe"],
            "stated_sizes": ["stated_tokens", "with_stated_sizes"],
            "store_urls": ["experiment_urls", "source_urls", "url_faults"],
            "yaml_sections": ["Location", "dump_sections", "read_sections"],
        },
    )
