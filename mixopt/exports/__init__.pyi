from .export import export_mixture as export_mixture, export_schedule as export_schedule
from .tools import EXPORT_TOOLS as EXPORT_TOOLS
from .units import ExportTool as ExportTool
