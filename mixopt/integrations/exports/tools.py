"""The tools that a mixture can be exported to, by name."""

from __future__ import annotations

from collections.abc import Mapping

from mixopt.integrations.exports.axolotl import AXOLOTL
from mixopt.integrations.exports.export_tool import ExportTool
from mixopt.integrations.exports.hf_datasets import DATASETS
from mixopt.integrations.exports.hf_transformers import TRANSFORMERS
from mixopt.integrations.exports.levanter import LEVANTER
from mixopt.integrations.exports.llamafactory import LLAMAFACTORY
from mixopt.integrations.exports.megatron import MEGATRON
from mixopt.integrations.exports.megatron_bridge import MEGATRON_BRIDGE, MEGATRON_BRIDGE_SFT
from mixopt.integrations.exports.nanotron import NANOTRON
from mixopt.integrations.exports.nemo import NEMO
from mixopt.integrations.exports.olmo_core import OLMO_CORE
from mixopt.integrations.exports.swift import SWIFT
from mixopt.integrations.exports.torchtitan import TORCHTITAN

EXPORT_TOOLS: Mapping[str, ExportTool] = {
    tool.name: tool
    for tool in (
        MEGATRON,
        MEGATRON_BRIDGE,
        MEGATRON_BRIDGE_SFT,
        NEMO,
        OLMO_CORE,
        LEVANTER,
        NANOTRON,
        TORCHTITAN,
        TRANSFORMERS,
        AXOLOTL,
        LLAMAFACTORY,
        SWIFT,
        DATASETS,
    )
}
