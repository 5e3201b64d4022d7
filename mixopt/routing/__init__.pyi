from .assignments import (
    Assignments as Assignments,
    LayerAssignments as LayerAssignments,
    no_layer as no_layer,
    nothing as nothing,
    router_key as router_key,
)
from .counters.adapters import (
    FoundRouter as FoundRouter,
    RouterAdapter as RouterAdapter,
    RouterTap as RouterTap,
)
from .counters.finding import (
    find_routers as find_routers,
    has_experts as has_experts,
    suspected_experts as suspected_experts,
)
from .counters.named_adapters import named_adapters as named_adapters
from .diagnoses import diagnose as diagnose
from .diagnosis import Diagnosis as Diagnosis
from .even_load import towards_even as towards_even
from .expert_biases import ExpertBiases as ExpertBiases
from .expert_change import ExpertChange as ExpertChange
from .expert_counts import (
    ExpertCounts as ExpertCounts,
    LayerInformation as LayerInformation,
    counts_from_json as counts_from_json,
    counts_to_json as counts_to_json,
    layer_information as layer_information,
)
from .expert_record import (
    COUNTS as COUNTS,
    EXPERTS as EXPERTS,
    LAYERS as LAYERS,
    PROBE as PROBE,
    SCALARS as SCALARS,
    AnyWindow as AnyWindow,
    CountedWindow as CountedWindow,
    ExpertRecord as ExpertRecord,
    RecordedWindow as RecordedWindow,
)
from .families import (
    FAMILIES as FAMILIES,
    REFUSED as REFUSED,
    RouterFamily as RouterFamily,
    coefficient_of as coefficient_of,
    family_of as family_of,
)
from .frames import from_frames as from_frames, to_frames as to_frames
from .measures import (
    expert_profiles as expert_profiles,
    lift as lift,
    load_shares as load_shares,
    profile_distances as profile_distances,
)
from .probe_file import load_probe as load_probe, save_probe as save_probe
from .probe_result import (
    ENOUGH_SEQUENCES as ENOUGH_SEQUENCES,
    ENOUGH_TOKENS as ENOUGH_TOKENS,
    LayerProbe as LayerProbe,
    ProbeResult as ProbeResult,
    join_probes as join_probes,
)
from .reserved import (
    ReservedThresholds as ReservedThresholds,
    diagnose_reserved as diagnose_reserved,
)
from .router_stats import RouterStats as RouterStats
from .scalars import (
    ScalarNames as ScalarNames,
    probe_scalars as probe_scalars,
    training_scalars as training_scalars,
    trial_scalars as trial_scalars,
)
from .state import (
    load_state as load_state,
    saved_domains as saved_domains,
    saved_state as saved_state,
)
from .summary import Summary as Summary
from .tables import (
    assignment_table as assignment_table,
    domain_table as domain_table,
    expert_ranks as expert_ranks,
    key_column as key_column,
    layer_table as layer_table,
)
from .thresholds import Thresholds as Thresholds
