from .dcp import MixtureState as MixtureState
from .export import (
    export_mixture as export_mixture,
    export_schedule as export_schedule,
    exporter as exporter,
    exporter_names as exporter_names,
)
from .export_interface import (
    Entry as Entry,
    ExportTool as ExportTool,
    Facts as Facts,
    Noted as Noted,
    StageEntries as StageEntries,
    WeightUnit as WeightUnit,
)
from .export_tools import EXPORT_TOOLS as EXPORT_TOOLS
from .hf_trainer import MixtureTrainer as MixtureTrainer, OnlineTrainer as OnlineTrainer
from .lightning import MixtureDataModule as MixtureDataModule
from .megatron import MegatronMixture as MegatronMixture, epochs_of as epochs_of
from .torchtitan import MixtureDataLoader as MixtureDataLoader
from .weight_units import (
    COUNTS as COUNTS,
    EPOCHS as EPOCHS,
    ROW_SLICES as ROW_SLICES,
    SAMPLES as SAMPLES,
    SEQUENCES as SEQUENCES,
)
