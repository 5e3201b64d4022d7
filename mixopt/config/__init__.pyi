from .constraints_section import ConstraintsConfig as ConstraintsConfig
from .corpus_section import (
    WHERE as WHERE,
    CorpusConfig as CorpusConfig,
    DomainConfig as DomainConfig,
    MixedConfig as MixedConfig,
    SourceConfig as SourceConfig,
)
from .design_section import (
    Anchor as Anchor,
    AnnealsConfig as AnnealsConfig,
    BaselineConfig as BaselineConfig,
    DesignConfig as DesignConfig,
    ValidateConfig as ValidateConfig,
)
from .experiment import (
    Config as Config,
    FitConfig as FitConfig,
    ProposeConfig as ProposeConfig,
    RiskConfig as RiskConfig,
    TrackingConfig as TrackingConfig,
)
from .experiment_file import (
    absent_texts as absent_texts,
    dump_config as dump_config,
    experiment_urls as experiment_urls,
    load_config as load_config,
    plugins_named as plugins_named,
    source_urls as source_urls,
    unusable_names as unusable_names,
    url_faults as url_faults,
)
from .loss_choice import chosen_losses as chosen_losses
from .objective_section import (
    ObjectiveConfig as ObjectiveConfig,
    TasksConfig as TasksConfig,
    TaskSetConfig as TaskSetConfig,
)
from .section import (
    FILES as FILES,
    RESERVED as RESERVED,
    Count as Count,
    Positive as Positive,
    Section as Section,
    Share as Share,
    is_recipe as is_recipe,
)
from .stated_sizes import (
    checked as checked,
    one_of as one_of,
    read_constraints as read_constraints,
    read_inventory as read_inventory,
    read_objective as read_objective,
    stated_tokens as stated_tokens,
    token_count as token_count,
    with_stated_sizes as with_stated_sizes,
)
from .task_names import (
    BITS_PER_BYTE as BITS_PER_BYTE,
    HIGHER as HIGHER,
    TASK as TASK,
    task_column as task_column,
    task_metric as task_metric,
)
from .yaml_sections import (
    Location as Location,
    dump_sections as dump_sections,
    read_sections as read_sections,
)
