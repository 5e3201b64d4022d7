"""The steps of a run in order, and the same answers from tables or from an existing fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.pipeline.from_fit import (
        Asked as Asked,
        propose_from as propose_from,
        propose_front_from as propose_front_from,
    )
    from mixopt.pipeline.from_tables import (
        evaluate_existing as evaluate_existing,
        fit_existing as fit_existing,
        load_fit as load_fit,
    )
    from mixopt.pipeline.proposal_input import read_inventory as read_inventory
    from mixopt.pipeline.status import run_status as run_status, status_lines as status_lines
    from mixopt.pipeline.steps import (
        design as design,
        fit as fit,
        prepare as prepare,
        propose as propose,
        report as report,
        run as run,
        sweep as sweep,
        validate as validate,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "from_fit": ["Asked", "propose_from", "propose_front_from"],
            "from_tables": ["evaluate_existing", "fit_existing", "load_fit"],
            "proposal_input": ["read_inventory"],
            "status": ["run_status", "status_lines"],
            "steps": ["design", "fit", "prepare", "propose", "report", "run", "sweep", "validate"],
        },
    )
