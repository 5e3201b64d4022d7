from .absent_text import absent_texts as absent_texts
from .anneals_section import AnnealsConfig as AnnealsConfig
from .constraints_section import ConstraintsConfig as ConstraintsConfig
from .corpus_section import (
    WHERE as WHERE,
    CorpusConfig as CorpusConfig,
    DomainConfig as DomainConfig,
    MixedConfig as MixedConfig,
    SourceConfig as SourceConfig,
)
from .design_section import Anchor as Anchor, DesignConfig as DesignConfig
from .experiment import (
    Config as Config,
    FitConfig as FitConfig,
    ProposeConfig as ProposeConfig,
    RiskConfig as RiskConfig,
    TrackingConfig as TrackingConfig,
)
from .experiment_file import (
    dump_config as dump_config,
    load_config as load_config,
    plugins_named as plugins_named,
    unusable_names as unusable_names,
)
from .given_values import (
    checked as checked,
    one_of as one_of,
    read_constraints as read_constraints,
    read_inventory as read_inventory,
    read_objective as read_objective,
    token_count as token_count,
)
from .loss_choice import chosen_losses as chosen_losses
from .names_of_domains import RESERVED as RESERVED
from .objective_section import ObjectiveConfig as ObjectiveConfig
from .section import (
    FILES as FILES,
    Count as Count,
    Positive as Positive,
    Section as Section,
    Share as Share,
)
from .starting_point import is_recipe as is_recipe
from .stated_sizes import stated_tokens as stated_tokens, with_stated_sizes as with_stated_sizes
from .store_urls import (
    experiment_urls as experiment_urls,
    source_urls as source_urls,
    url_faults as url_faults,
)
from .task_names import (
    HIGHER as HIGHER,
    OF_CHOICES as OF_CHOICES,
    TASK as TASK,
    task_column as task_column,
    task_metric as task_metric,
)
from .tasks_section import (
    Metric as Metric,
    Normalisation as Normalisation,
    TasksConfig as TasksConfig,
    TaskSetConfig as TaskSetConfig,
)
from .validation_section import BaselineConfig as BaselineConfig, ValidateConfig as ValidateConfig
from .yaml_sections import (
    Location as Location,
    dump_sections as dump_sections,
    read_sections as read_sections,
)
