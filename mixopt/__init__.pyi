from .corpus import Corpus as Corpus
from .errors import (
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
from .loading import (
    MixtureDataset as MixtureDataset,
    MixtureLoader as MixtureLoader,
    MixtureStream as MixtureStream,
    PackedDocuments as PackedDocuments,
)
from .mixture import Mixture as Mixture, Phases as Phases
from .pipeline import (
    check as check,
    export as export,
    load_fit as load_fit,
    predict as predict,
    propose as propose,
    run as run,
    status as status,
    stop as stop,
)
from .pretraining import pretrain as pretrain
from .proposals import Proposal as Proposal
from .reporting import experts as experts, explore as explore
from .run_directory import Run as Run, load_run as load_run
from .sampling import MixtureSampler as MixtureSampler
from .system.version import __version__ as __version__
from .trials import Trials as Trials
