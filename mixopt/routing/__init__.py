"""How the experts of a mixture-of-experts model divide the data domains.

    stats = RouterStats.attach(model, domains=["web", "code"])
    with stats.domains(domain_ids, mask):
        loss = model(**batch).loss
    stats.reduce()
    print(stats.summary())

Counting needs torch, tables need polars; both are loaded when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.errors import RoutingError
from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.routing.assignments import (
        Assignments as Assignments,
        LayerAssignments as LayerAssignments,
        no_layer as no_layer,
        nothing as nothing,
        router_key as router_key,
    )
    from mixopt.routing.counters.adapters import (
        FoundRouter as FoundRouter,
        RouterAdapter as RouterAdapter,
        RouterTap as RouterTap,
    )
    from mixopt.routing.counters.finding import (
        find_routers as find_routers,
        has_experts as has_experts,
        suspected_experts as suspected_experts,
    )
    from mixopt.routing.counters.named_adapters import (
        named_adapters as named_adapters,
    )
    from mixopt.routing.diagnoses import (
        diagnose as diagnose,
    )
    from mixopt.routing.diagnosis import (
        Diagnosis as Diagnosis,
    )
    from mixopt.routing.even_load import (
        towards_even as towards_even,
    )
    from mixopt.routing.expert_biases import (
        ExpertBiases as ExpertBiases,
    )
    from mixopt.routing.expert_change import (
        ExpertChange as ExpertChange,
    )
    from mixopt.routing.expert_counts import (
        ExpertCounts as ExpertCounts,
        LayerInformation as LayerInformation,
        counts_from_json as counts_from_json,
        counts_to_json as counts_to_json,
        layer_information as layer_information,
    )
    from mixopt.routing.expert_record import (
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
    from mixopt.routing.families import (
        FAMILIES as FAMILIES,
        REFUSED as REFUSED,
        RouterFamily as RouterFamily,
        coefficient_of as coefficient_of,
        family_of as family_of,
    )
    from mixopt.routing.frames import (
        from_frames as from_frames,
        to_frames as to_frames,
    )
    from mixopt.routing.measures import (
        expert_profiles as expert_profiles,
        lift as lift,
        load_shares as load_shares,
        profile_distances as profile_distances,
    )
    from mixopt.routing.probe_file import (
        load_probe as load_probe,
        save_probe as save_probe,
    )
    from mixopt.routing.probe_result import (
        ENOUGH_SEQUENCES as ENOUGH_SEQUENCES,
        ENOUGH_TOKENS as ENOUGH_TOKENS,
        LayerProbe as LayerProbe,
        ProbeResult as ProbeResult,
        join_probes as join_probes,
    )
    from mixopt.routing.reserved import (
        ReservedThresholds as ReservedThresholds,
        diagnose_reserved as diagnose_reserved,
    )
    from mixopt.routing.router_stats import (
        RouterStats as RouterStats,
    )
    from mixopt.routing.scalars import (
        ScalarNames as ScalarNames,
        probe_scalars as probe_scalars,
        training_scalars as training_scalars,
        trial_scalars as trial_scalars,
    )
    from mixopt.routing.state import (
        load_state as load_state,
        saved_domains as saved_domains,
        saved_state as saved_state,
    )
    from mixopt.routing.summary import (
        Summary as Summary,
    )
    from mixopt.routing.tables import (
        assignment_table as assignment_table,
        domain_table as domain_table,
        expert_ranks as expert_ranks,
        key_column as key_column,
        layer_table as layer_table,
    )
    from mixopt.routing.thresholds import (
        Thresholds as Thresholds,
    )
else:
    _load, __dir__ = lazy_names(
        __name__,
        {
            "assignments": ["Assignments", "LayerAssignments", "no_layer", "nothing", "router_key"],
            "counters.adapters": ["FoundRouter", "RouterAdapter", "RouterTap"],
            "counters.finding": ["find_routers", "has_experts", "suspected_experts"],
            "counters.named_adapters": ["named_adapters"],
            "diagnoses": ["diagnose"],
            "diagnosis": ["Diagnosis"],
            "even_load": ["towards_even"],
            "expert_biases": ["ExpertBiases"],
            "expert_change": ["ExpertChange"],
            "expert_counts": [
                "ExpertCounts",
                "LayerInformation",
                "counts_from_json",
                "counts_to_json",
                "layer_information",
            ],
            "expert_record": [
                "AnyWindow",
                "COUNTS",
                "CountedWindow",
                "EXPERTS",
                "ExpertRecord",
                "LAYERS",
                "PROBE",
                "RecordedWindow",
                "SCALARS",
            ],
            "families": ["FAMILIES", "REFUSED", "RouterFamily", "coefficient_of", "family_of"],
            "frames": ["from_frames", "to_frames"],
            "measures": ["expert_profiles", "lift", "load_shares", "profile_distances"],
            "probe_file": ["load_probe", "save_probe"],
            "probe_result": [
                "ENOUGH_SEQUENCES",
                "ENOUGH_TOKENS",
                "LayerProbe",
                "ProbeResult",
                "join_probes",
            ],
            "reserved": ["ReservedThresholds", "diagnose_reserved"],
            "router_stats": ["RouterStats"],
            "scalars": ["ScalarNames", "probe_scalars", "training_scalars", "trial_scalars"],
            "state": ["load_state", "saved_domains", "saved_state"],
            "summary": ["Summary"],
            "tables": [
                "assignment_table",
                "domain_table",
                "expert_ranks",
                "key_column",
                "layer_table",
            ],
            "thresholds": ["Thresholds"],
        },
    )

    def __getattr__(name: str) -> object:
        try:
            return _load(name)
        except ModuleNotFoundError as error:
            raise RoutingError(
                f"mixopt.routing.{name} needs {error.name}: pip install 'mixopt[proxies]'"
            ) from error
