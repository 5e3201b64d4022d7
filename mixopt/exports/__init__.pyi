from .export import export_mixture as export_mixture, export_schedule as export_schedule
from .fragments import EXPORT_TOOLS as EXPORT_TOOLS
from .units import ExportTool as ExportTool
