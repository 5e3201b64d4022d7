"""The tools that a mixture can be exported to, by name."""

from __future__ import annotations

from collections.abc import Mapping

from mixopt.integrations.exports.export_tool import ExportTool
from mixopt.integrations.exports.hf_datasets import DATASETS
from mixopt.integrations.exports.hf_transformers import TRANSFORMERS
from mixopt.integrations.exports.megatron import MEGATRON
from mixopt.integrations.exports.olmo_core import OLMO_CORE

EXPORT_TOOLS: Mapping[str, ExportTool] = {
    tool.name: tool for tool in (MEGATRON, OLMO_CORE, TRANSFORMERS, DATASETS)
}
