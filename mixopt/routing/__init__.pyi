from .adapters import (
    FoundRouter as FoundRouter,
    RouterAdapter as RouterAdapter,
    RouterTap as RouterTap,
)
from .assignments import (
    Assignments as Assignments,
    ExpertCounts as ExpertCounts,
    LayerAssignments as LayerAssignments,
)
from .diagnoses import diagnose as diagnose
from .finding import (
    auxiliary_coefficient as auxiliary_coefficient,
    find_routers as find_routers,
    has_experts as has_experts,
    named_adapters as named_adapters,
)
from .measures import expert_profiles as expert_profiles, lift as lift, load_shares as load_shares
from .record import EXPERTS as EXPERTS, ExpertRecord as ExpertRecord, Window as Window
from .router_stats import RouterStats as RouterStats
from .summary import (
    Summary as Summary,
    key_column as key_column,
    layer_table as layer_table,
    training_scalars as training_scalars,
    trial_scalars as trial_scalars,
)
