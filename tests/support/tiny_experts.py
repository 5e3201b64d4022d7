"""Tiny models with random weights of every family of transformers that has experts."""

import importlib
import inspect
import re
from pathlib import Path

import pytest
import torch
import yaml

from mixopt.routing import find_routers

transformers = pytest.importorskip("transformers")
BIASES = {"e_score_correction_bias", "expert_bias", "balancing_biases"}
# Families that cannot be counted, or whose experts are of images.
NOT_COUNTED = {"dots3_note_vision_encoder", "inkling2_loop_text", "nllb-moe", "vitpose_backbone"}


def families():
    """Return each model type in transformers whose configuration has a number of experts."""
    size = re.compile(r"^    (\w*(?:num|n|nb)_(?:\w+_)?experts|\w*expert_num)\s*:", re.MULTILINE)
    other = re.compile(r"shared|zero|activated|selected")
    kind = re.compile(r"^    model_type = \"([^\"]+)\"", re.MULTILINE)
    found = {"dbrx"}  # its number is of a part of its configuration
    for file in Path(transformers.__file__).parent.glob("models/*/configuration_*.py"):
        for part in re.split(r"^(?=class )", file.read_text(encoding="utf-8"), flags=re.MULTILINE):
            if any(not other.search(name) for name in size.findall(part)):
                found |= set(kind.findall(part))
    assert found > NOT_COUNTED, NOT_COUNTED - found
    return sorted(found - NOT_COUNTED)


# transformers cannot compute their layers again in the backward pass.
NOT_RECOMPUTED = {"jetmoe", "diffusion_gemma_text"}
# What most families call their sizes; a family takes those that its configuration has.
_BY_SIZE = yaml.safe_load("""
64: vocab_size max_position_embeddings
32: hidden_size intermediate_size
16: moe_intermediate_size shared_expert_intermediate_size shared_experts_intermediate_size
    shared_intermediate_size moe_shared_expert_intermediate_size share_expert_dim rel_extent
8: head_dim num_experts num_local_experts n_routed_experts moe_num_experts q_lora_rank kv_lora_rank
   qk_rope_head_dim qk_nope_head_dim v_head_dim index_head_dim linear_key_head_dim
   linear_value_head_dim linear_head_dim swa_head_dim sliding_window sliding_window_size
4: num_attention_heads num_key_value_heads n_group index_topk linear_num_value_heads
   linear_num_heads swa_num_attention_heads swa_num_key_value_heads
3: num_hidden_layers
2: eos_token_id num_experts_per_tok num_experts_per_token moe_topk moe_k top_k_experts topk_group
   index_n_heads linear_num_key_heads
1: bos_token_id first_k_dense_replace n_shared_experts num_shared_experts moe_num_shared_experts
0: pad_token_id
""")
SIZES = {name: size for size, names in _BY_SIZE.items() for name in names.split()}
SIZES |= {"use_cache": False, "output_router_logits": True}
OWN = yaml.safe_load("""
axk2: {n_group: null, topk_group: null}
beam: {mlp_layer_types: [dense, sparse, sparse]}
dbrx: {d_model: 32, n_heads: 4, n_layers: 3,
  attn_config: {kv_n_heads: 2, clip_qkv: 8.0, rope_theta: 10000.0},
  ffn_config: {hidden_size: 32, ffn_hidden_size: 16, moe_num_experts: 8, moe_top_k: 2}}
deepseek_ocr2_text: {mlp_layer_types: [dense, sparse, sparse]}
deepseek_v2: {topk_method: group_limited_greedy}
deepseek_v4: {mlp_layer_types: [hash_moe, moe, moe]}
diffusion_gemma_text: {global_head_dim: 8}
doge: {is_moe: true, num_experts: 18, output_router_logits: false}
dots3_note_text: {layer_types: [full_attention, full_attention, full_attention]}
ernie4_5_vl_moe_text: {moe_intermediate_size: [16, 16],
  rope_parameters: {rope_type: default, rope_theta: 10000.0, mrope_section: [1, 1, 2]}}
flint: {mlp_only_layers: [0]}
gemma4_text: {enable_moe_block: true, hidden_size_per_layer_input: 0,
  vocab_size_per_layer_input: 64, global_head_dim: 8}
glm4v_moe_text: {rope_parameters: {rope_type: default, rope_theta: 10000.0,
  mrope_section: [1, 1, 0], partial_rotary_factor: 0.5}}
glm5_next_text: {qk_rope_head_dim: 0, head_dim: 0, index_kpool: 4,
  mlp_layer_types: [dense, sparse, sparse]}
granitemoehybrid: {mamba_n_heads: 8, mamba_d_state: 8, mamba_chunk_size: 8,
  layer_types: [mamba, attention, mamba]}
hy_v4_vl_text: {rope_parameters: {rope_type: default, rope_theta: 10000.0,
  mrope_section: [2, 1, 1]}}
inkling_text: {n_shared_experts: 2}
jetmoe: {kv_channels: 8, num_key_value_heads: 2}
lfm2_moe: {num_dense_layers: 1, layer_types: [conv, full_attention, conv]}
longcat_flash: {num_layers: 2, ffn_hidden_size: 32, expert_ffn_hidden_size: 16, zero_expert_num: 2}
mimo_v2_flash: {layer_types: [full_attention, full_attention, full_attention]}
muse_spark_text: {moe_hidden_size: 16}
nemotron_h: {ssm_state_size: 8, mamba_num_heads: 8, mamba_head_dim: 8, n_groups: 2, chunk_size: 8,
  layers_block_type: [mamba, moe, attention, moe]}
qwen3_moe: {mlp_only_layers: [0]}
# Its layers read a field that its configuration does not have.
qwen3_omni_moe_talker_text: {shared_expert_intermediate_size: 16}
step3p5: {mlp_layer_types: [dense, sparse, sparse]}
switch_transformers: {d_model: 32, d_kv: 8, d_ff: 32, num_layers: 2, num_decoder_layers: 2,
  num_heads: 4, num_sparse_encoder_layers: 1, num_sparse_decoder_layers: 1, expert_capacity: 2,
  decoder_start_token_id: 0}
unlimited_ocr_text: {mlp_layer_types: [dense, sparse, sparse]}
zaya: {num_experts_per_tok: 1, router_hidden_size: 16}
""")
# Where neither a causal language model nor AutoModel has the text model of a family.
MODELS = {
    "deepseek_ocr2_text": "deepseek_ocr2:DeepseekOcr2TextModel",
    "diffusion_gemma_text": "diffusion_gemma:DiffusionGemmaEncoderTextModel",
    "ernie4_5_vl_moe_text": "ernie4_5_vl_moe:Ernie4_5_VLMoeTextModel",
    "qwen3_omni_moe_text": "qwen3_omni_moe:Qwen3OmniMoeThinkerTextModel",
    "qwen3_omni_moe_talker_text": "qwen3_omni_moe:Qwen3OmniMoeTalkerModel",
    "step3p5": "step3p7:Step3p7TextModel",
    "switch_transformers": "switch_transformers:SwitchTransformersForConditionalGeneration",
    "unlimited_ocr_text": "unlimited_ocr:UnlimitedOcrTextModel",
}


def tiny_experts(family, **options):
    """Return a tiny model of a family in training, its routers decided, biases that are not 0."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = transformers.CONFIG_MAPPING[family]
    fields = set(inspect.signature(kind).parameters)
    sizes = {name: size for name, size in SIZES.items() if name in fields}
    config = kind(**sizes | OWN.get(family, {}) | options)
    torch.manual_seed(0)
    if family in MODELS:
        package, _, name = MODELS[family].partition(":")
        module = importlib.import_module(f"transformers.models.{package}.modeling_{package}")
        model = getattr(module, name)(config)
    else:
        causal = family in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        kinds = transformers.AutoModelForCausalLM, transformers.AutoModel
        model = kinds[not causal].from_config(config)
    model.set_experts_implementation("eager")
    _decide(model)
    return model.train()


def inputs_of(model, tokens, mask):
    """Return what a model's forward is given: an encoder-decoder has the same text twice."""
    inputs = {"input_ids": tokens, "attention_mask": mask}
    if model.config.is_encoder_decoder:
        return inputs | {"decoder_input_ids": tokens}
    table = getattr(model, "codec_embedding", None)  # of Qwen3-Omni's talker
    return inputs if table is None else {"inputs_embeds": table(tokens), "attention_mask": mask}


def _decide(model):
    """Spread logits and biases, so that the largest logits are not what a biased router takes."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "experts" in name:  # the talker of Qwen3-Omni leaves its own as they were in memory
                weight.normal_(0, 0.1)
        for router in find_routers(model):
            block = model.get_submodule(router.name.rpartition(".")[0])
            for name, weight in block.named_parameters():
                is_router = not any(part in name for part in ("experts", "embed", "shared"))
                if is_router and name.endswith("weight") and weight.dim() == 2:
                    weight.normal_(0, 0.5)
            for name, bias in (*block.named_parameters(), *block.named_buffers()):
                if name.rpartition(".")[2] in BIASES:
                    bias.uniform_(-0.3, 0.3)
            for module in block.modules():
                for row in getattr(module, "tid2eid", ()):
                    row.copy_(torch.randperm(router.experts)[: router.top_k])
