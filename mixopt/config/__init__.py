"""The experiment's YAML as checked values that know their file and line.

`Config` is one experiment; a field that is unknown, of the wrong type or out of range is an error
that names file, field and line. What only the corpus can tell is checked when that is open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.config.experiment import (
        Anchor as Anchor,
        Config as Config,
        ConstraintsConfig as ConstraintsConfig,
        CorpusConfig as CorpusConfig,
        Count as Count,
        DesignConfig as DesignConfig,
        FitConfig as FitConfig,
        ObjectiveConfig as ObjectiveConfig,
        Positive as Positive,
        ProposeConfig as ProposeConfig,
        RiskConfig as RiskConfig,
        Section as Section,
        Share as Share,
        SourceConfig as SourceConfig,
        TrackingConfig as TrackingConfig,
        ValidateConfig as ValidateConfig,
    )
    from mixopt.config.experiment_file import (
        RESERVED as RESERVED,
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
        token_count as token_count,
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
            "experiment": [
                "Anchor",
                "Config",
                "ConstraintsConfig",
                "CorpusConfig",
                "Count",
                "DesignConfig",
                "FitConfig",
                "ObjectiveConfig",
                "Positive",
                "ProposeConfig",
                "RiskConfig",
                "Section",
                "Share",
                "SourceConfig",
                "TrackingConfig",
                "ValidateConfig",
            ],
            "experiment_file": [
                "RESERVED",
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
                "token_count",
            ],
            "yaml_sections": ["Location", "dump_sections", "read_sections"],
        },
    )
