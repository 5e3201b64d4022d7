from .constraints_section import (
    ConstraintsConfig as ConstraintsConfig,
    RadiusConfig as RadiusConfig,
)
from .corpus_section import (
    WHERE as WHERE,
    CorpusConfig as CorpusConfig,
    DomainConfig as DomainConfig,
    MixedConfig as MixedConfig,
    SourceConfig as SourceConfig,
    Sources as Sources,
    absent_texts as absent_texts,
    source_urls as source_urls,
    unusable_names as unusable_names,
    url_faults as url_faults,
)
from .experiment import (
    Config as Config,
    FitConfig as FitConfig,
    SweepConfig as SweepConfig,
    TrackingConfig as TrackingConfig,
    experiment_urls as experiment_urls,
    is_recipe as is_recipe,
    plugins_named as plugins_named,
)
from .inventory import read_inventory as read_inventory
from .load_experiment import (
    load_config as load_config,
    read_constraints as read_constraints,
    read_objective as read_objective,
)
from .mixture_sections import (
    Anchor as Anchor,
    AnnealsConfig as AnnealsConfig,
    DesignConfig as DesignConfig,
    ProposeConfig as ProposeConfig,
    Stage as Stage,
    ValidateConfig as ValidateConfig,
)
from .objective_section import (
    ObjectiveConfig as ObjectiveConfig,
    TasksConfig as TasksConfig,
    chosen_losses as chosen_losses,
)
from .sections import (
    FILES as FILES,
    Count as Count,
    Fault as Fault,
    Location as Location,
    Positive as Positive,
    Section as Section,
    Share as Share,
    as_count as as_count,
    checked as checked,
    dump_sections as dump_sections,
    one_given as one_given,
    optional as optional,
    read_sections as read_sections,
    token_count as token_count,
)
from .task_names import (
    BITS_PER_BYTE as BITS_PER_BYTE,
    TASK as TASK,
    task_column as task_column,
    task_metric as task_metric,
)
