"""NeMo: the `dataset` of a NeMo Automodel recipe with MegatronPretraining.

Language models left nemo-toolkit for Automodel and Megatron-Bridge; its version 3 has speech only.
Read as well: `data.paths` of NeMo 2 and `model.data.data_prefix` of NeMo 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mixopt.integrations.exports.blend import (
    blend_of,
    check_no_interpolation,
    found_in_blend,
)
from mixopt.integrations.exports.export_tool import Entry, ExportTool, Weighed
from mixopt.integrations.exports.facts import Facts
from mixopt.integrations.exports.units import Sequences
from mixopt.integrations.exports.yaml_fragment import missing, part, read_mapping, yaml_fragment

_PLACES = (("dataset", "paths"), ("data", "paths"), ("model", "data", "data_prefix"), ("paths",))


def _write(entries: Sequence[Entry], header: Sequence[str], facts: Facts) -> str:
    check_no_interpolation(entries, facts)
    blend = [one for weight, path in blend_of(entries, facts) for one in (repr(weight), path)]
    return yaml_fragment(header, {"dataset": {"paths": blend}})


def _read(text: str, facts: Facts) -> list[Weighed]:
    content = read_mapping(text, facts.tool)
    found: list[Any] = [part(content, *place) for place in _PLACES]
    blends = [one.get("train") if isinstance(one, dict) else one for one in found]
    blend = next((one for one in blends if isinstance(one, list)), None)
    if blend is None:
        raise missing(facts.tool, "dataset.paths with weights and paths")
    return found_in_blend(blend, facts.tool)


NEMO = ExportTool(
    name="nemo",
    title="NeMo Automodel",
    version="0.7.0",
    unit=Sequences(),
    place="YAML, `dataset.paths`: weight and path of each indexed dataset, one after the other",
    command="put it into a recipe whose dataset is MegatronPretraining; automodel FILE",
    write=_write,
    read=_read,
    single_path=True,
    notes=("A path is the prefix of a .bin and an .idx file.",),
)
