"""A mixture in the form and the unit of twelve trainers, and back.

Nothing here needs a trainer: fragments are text, and their Python is parsed, never run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.integrations.exports.export_tool import ExportTool as ExportTool
    from mixopt.integrations.exports.mixture_export import (
        export_mixture as export_mixture,
        import_mixture as import_mixture,
    )
    from mixopt.integrations.exports.schedule_export import export_schedule as export_schedule
    from mixopt.integrations.exports.tools import EXPORT_TOOLS as EXPORT_TOOLS
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "export_tool": ["ExportTool"],
            "mixture_export": ["export_mixture", "import_mixture"],
            "schedule_export": ["export_schedule"],
            "tools": ["EXPORT_TOOLS"],
        },
    )
