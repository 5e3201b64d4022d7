from .export_tool import ExportTool as ExportTool
from .mixture_export import export_mixture as export_mixture, import_mixture as import_mixture
from .schedule_export import export_schedule as export_schedule
from .tools import EXPORT_TOOLS as EXPORT_TOOLS
