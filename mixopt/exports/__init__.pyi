from .export import (
    export_mixture as export_mixture,
    export_schedule as export_schedule,
    exporter as exporter,
    exporter_names as exporter_names,
)
from .tools import EXPORT_TOOLS as EXPORT_TOOLS
from .units import (
    COUNTS as COUNTS,
    EPOCHS as EPOCHS,
    ROW_SLICES as ROW_SLICES,
    SAMPLES as SAMPLES,
    SEQUENCES as SEQUENCES,
    Entry as Entry,
    ExportTool as ExportTool,
    Facts as Facts,
    Noted as Noted,
    StageEntries as StageEntries,
    WeightUnit as WeightUnit,
)
