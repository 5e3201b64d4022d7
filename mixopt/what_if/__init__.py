"""What any mixture would give: the law as plain numbers, and its views in a page and a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.what_if.explorer import Explorer as Explorer
    from mixopt.what_if.exploring import explore as explore
    from mixopt.what_if.fitted_law import law_data as law_data
    from mixopt.what_if.packing import packed_json as packed_json
    from mixopt.what_if.run_data import what_if_data as what_if_data
    from mixopt.what_if.scripts import law_script as law_script, style as style
    from mixopt.what_if.section import (
        WhatIfSection as WhatIfSection,
        view_script as view_script,
        what_if_section as what_if_section,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "explorer": ["Explorer"],
            "exploring": ["explore"],
            "fitted_law": ["law_data"],
            "packing": ["packed_json"],
            "run_data": ["what_if_data"],
            "scripts": ["law_script", "style"],
            "section": ["WhatIfSection", "view_script", "what_if_section"],
        },
    )
