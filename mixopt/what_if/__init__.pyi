from .explorer import Explorer as Explorer
from .exploring import explore as explore
from .fitted_law import law_data as law_data
from .packing import packed_json as packed_json
from .run_data import what_if_data as what_if_data
from .scripts import law_script as law_script, style as style
from .section import (
    WhatIfSection as WhatIfSection,
    view_script as view_script,
    what_if_section as what_if_section,
)
