"""The families of transformers 5 that have experts, by the `model_type` of their configuration.

Read from their code, class by class: what scores, in which order with the choice, what balances.
A softmax over the chosen alone (gpt-oss, Granite, Aria, JetMoE) has the softmax over all as its
probabilities: the chosen ones' shares are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from torch import nn

from mixopt.routing.families.family import KnownRouter, RouterFamily
from mixopt.routing.families.readers import (
    read_capacity,
    read_dense,
    read_logits,
    read_probabilities,
    read_product_keys,
    read_skipping,
    read_sorted,
    read_triple,
    scores_of_function,
    scores_of_selection,
)

_BIAS, _LOSS = "e_score_correction_bias", "router_aux_loss_coef"
_ONE, _MANY = "shared_expert", "shared_experts"


def _softmax(name: str, bias: str | None = None) -> KnownRouter:
    return KnownRouter(name, "softmax", read_triple, bias=bias)


def _sigmoid(name: str, bias: str | None = _BIAS) -> KnownRouter:
    return KnownRouter(name, "sigmoid", read_triple, bias=bias)


def _by_loss(*routers: KnownRouter, shared: str | None = None) -> RouterFamily:
    return RouterFamily(routers, "auxiliary", coefficient=_LOSS, shared=shared)


def _by_bias(router: str, *, shared: str | None = None, bias: str = _BIAS) -> RouterFamily:
    return RouterFamily((_sigmoid(router, bias),), "bias", shared=shared)


def _unbalanced(router: KnownRouter, *, shared: str | None = None) -> RouterFamily:
    return RouterFamily((router,), "none", shared=shared)


_AUXILIARY = {
    "flex_olmo": _by_loss(_softmax("FlexOlmoTopKRouter")),
    "gpt_oss": _by_loss(_softmax("GptOssTopKRouter")),
    "granitemoe": _by_loss(_softmax("GraniteMoeTopKRouter")),
    "granitemoe_swa": _by_loss(_softmax("GraniteMoeSWATopKRouter")),
    "granitemoehybrid": _by_loss(_softmax("GraniteMoeHybridTopKRouter")),
    "granitemoeshared": _by_loss(_softmax("GraniteMoeSharedTopKRouter")),
    "jamba": _by_loss(_softmax("JambaTopKRouter")),
    "mellum": _by_loss(_softmax("MellumTopKRouter")),
    "minimax": _by_loss(_softmax("MiniMaxTopKRouter")),
    "mixtral": _by_loss(_softmax("MixtralTopKRouter")),
    "olmoe": _by_loss(_softmax("OlmoeTopKRouter")),
    "qwen2_moe": _by_loss(_softmax("Qwen2MoeTopKRouter"), shared=_ONE),
    "qwen3_moe": _by_loss(_softmax("Qwen3MoeTopKRouter")),
    "qwen3_next": _by_loss(_softmax("Qwen3NextTopKRouter"), shared=_ONE),
    "qwen3_5_moe_text": _by_loss(_softmax("Qwen3_5MoeTopKRouter"), shared=_ONE),
    "qwen3_vl_moe_text": _by_loss(_softmax("Qwen3VLMoeTextTopKRouter")),
    "qwen3_omni_moe_text": _by_loss(
        _softmax("Qwen3OmniMoeThinkerTextTopKRouter"), _softmax("Qwen3OmniMoeTextTopKRouter")
    ),
    "qwen3_omni_moe_talker_text": _by_loss(
        _softmax("Qwen3OmniMoeTalkerTextTopKRouter"), shared=_ONE
    ),
    "qwen4_exp_text": _by_loss(_softmax("Qwen4ExpTextTopKRouter"), shared=_ONE),
    "lara_mini": _by_loss(_softmax("LaraMiniTopKRouter"), shared=_ONE),
    "flint": _by_loss(_sigmoid("FlintTopKRouter", None), shared=_ONE),
    # These add a bias as well, which nothing in transformers moves.
    "deepseek_v4": _by_loss(
        KnownRouter("DeepseekV4TopKRouter", scores_of_function, read_triple, bias=_BIAS),
        KnownRouter("DeepseekV4HashRouter", scores_of_function, read_triple),
        shared=_MANY,
    ),
    "ernie4_5_moe": _by_loss(
        _softmax("Ernie4_5_MoeTopKRouter", "moe_statics." + _BIAS), shared=_MANY
    ),
    "ernie4_5_vl_moe_text": RouterFamily(
        (_softmax("Ernie4_5_VLMoeMoeTopKRouter", "moe_statics." + _BIAS),),
        "auxiliary",
        coefficient=_LOSS,
        limits="text alone: images go to experts of their own, which are not counted, and a batch"
        " that has some is refused",
    ),
    "glm4v_moe_text": _by_loss(_sigmoid("Glm4vMoeTextTopkRouter"), shared=_MANY),
    "glm5_next_text": _by_loss(_sigmoid("Glm5NextTextTopkRouter"), shared=_MANY),
    "laguna": _by_loss(_sigmoid("LagunaTopKRouter"), shared=_MANY),
    "minimax_m2": _by_loss(_sigmoid("MiniMaxM2TopKRouter")),
    "minimax_m3_vl_text": _by_loss(_sigmoid("MiniMaxM3VLTopKRouter"), shared=_MANY),
}
_BIASED = {
    "afmoe": _by_bias("AfmoeTokenChoiceRouter", bias="expert_bias", shared=_MANY),
    "axk1": _by_bias("AXK1TopkRouter", shared=_MANY),
    "axk2": _by_bias("AXK2TopkRouter", shared=_MANY),
    "bailing_hybrid": _by_bias("BailingHybridTopkRouter", shared=_MANY),
    "beam": _by_bias("BeamTopKRouter"),
    "deepseek_v3": _by_bias("DeepseekV3TopkRouter", shared=_MANY),
    "deepseek_v32": _by_bias("DeepseekV32TopkRouter", shared=_MANY),
    "dots1": _by_bias("Dots1TopkRouter", shared=_MANY),
    "dots3_note_text": _by_bias("Dots3NoteTextTopkRouter", shared=_MANY),
    "exaone_moe": _by_bias("ExaoneMoeTopkRouter", shared=_MANY),
    "glm4_moe": _by_bias("Glm4MoeTopkRouter", shared=_MANY),
    "glm4_moe_lite": _by_bias("Glm4MoeLiteTopkRouter", shared=_MANY),
    "glm_moe_dsa": _by_bias("GlmMoeDsaTopkRouter", shared=_MANY),
    "hy_v3": _by_bias("HYV3TopKRouter", shared=_MANY),
    "hy_v4": _by_bias("HYV4TopkRouter", shared=_MANY),
    "hy_v4_vl_text": _by_bias("HYV4VLTopkRouter", shared=_MANY),
    "inkling_text": _by_bias("InklingTopkRouter", shared=_MANY),
    "kimi_linear": _by_bias("KimiLinearTopkRouter", shared=_MANY),
    "kolibri1": _by_bias("Kolibri1TopKRouter", shared=_MANY),
    "lfm2_moe": _by_bias("Lfm2MoeTopKRouter", bias="expert_bias"),
    "mimo_v2_flash": _by_bias("MiMoV2FlashTopkRouter"),
    "muse_spark_text": _by_bias("MuseSparkTopkRouter"),
    "nemotron_h": _by_bias("NemotronHTopkRouter", shared=_MANY),
    # Configurations of their own, for the classes of others.
    "sarvam_mla": _by_bias("DeepseekV3TopkRouter", shared=_MANY),
    "sarvam_moe": _by_bias("Glm4MoeTopkRouter", shared=_MANY),
    "solar_open": _by_bias("SolarOpenTopkRouter", shared=_MANY),
    "step3p5": _by_bias("Step3p7TopKRouter", shared=_MANY),
    "inkling2_text": RouterFamily(
        (KnownRouter("Inkling2TopKRouter", scores_of_function, read_triple, bias=_BIAS),), "bias"
    ),
    "longcat_flash": RouterFamily(
        (
            KnownRouter(
                "LongcatFlashTopkRouter",
                "softmax",
                read_triple,
                idle="config.zero_expert_num",
                bias=_BIAS,
            ),
        ),
        "bias",
    ),
    "zaya": RouterFamily(
        (KnownRouter("ZayaRouter", "softmax", read_skipping, idle=1, bias="balancing_biases"),),
        "bias",
    ),
}
_UNBALANCED = {
    "aria_text": _unbalanced(_softmax("AriaTextTopKRouter"), shared=_MANY),
    "cohere2_moe": _unbalanced(
        KnownRouter("Cohere2MoeTopKRouter", scores_of_selection, read_triple), shared=_MANY
    ),
    "deepseek_ocr2_text": _unbalanced(_softmax("DeepseekOcr2TextTopkRouter"), shared=_MANY),
    "deepseek_v2": _unbalanced(_softmax("DeepseekV2TopkRouter"), shared=_MANY),
    "hunyuan_v1_moe": _unbalanced(_softmax("HunYuanMoEV1Gate"), shared="shared_mlp"),
    "llama4_text": _unbalanced(KnownRouter("Llama4Router", "sigmoid", read_dense), shared=_ONE),
    "mistral4": _unbalanced(_softmax("Mistral4TopkRouter"), shared=_MANY),
    "mistral_large4_text": _unbalanced(_softmax("MistralLarge4TextTopkRouter"), shared=_MANY),
    "openai_privacy_filter": _unbalanced(_softmax("OpenAIPrivacyFilterTopKRouter")),
    "unlimited_ocr_text": _unbalanced(_softmax("UnlimitedOcrTextTopkRouter"), shared=_MANY),
}


def _gemma(name: str) -> RouterFamily:
    known = KnownRouter(
        name,
        "softmax",
        read_probabilities,
        experts="proj.out_features",
        top_k="config.top_k_experts",
    )
    limits = "its routers return probabilities, so the size of the logits is not known"
    return RouterFamily((known,), "none", limits=limits)


_OTHERS = {
    "dbrx": RouterFamily(
        (
            KnownRouter(
                "DbrxRouter",
                "softmax",
                read_logits,
                experts="layer.out_features",
                top_k="config.ffn_config.moe_top_k",
            ),
        ),
        "auxiliary",
        coefficient="ffn_config.moe_loss_weight",
    ),
    "jetmoe": RouterFamily(
        (KnownRouter("JetMoeTopKGating", "softmax", read_sorted),),
        "auxiliary",
        coefficient="aux_loss_coef",
    ),
    "doge": RouterFamily(
        (
            KnownRouter(
                "DogeCDMoE", "softmax", read_product_keys, experts="down_embed.num_embeddings"
            ),
        ),
        "auxiliary",
        coefficient=_LOSS,
    ),
    "phimoe": RouterFamily(
        (_softmax("PhimoeTopKRouter"),),
        "auxiliary",
        coefficient=_LOSS,
        limits="probabilities are the softmax over all experts, as its auxiliary loss takes them; "
        "SparseMixer samples among fewer",
    ),
    "switch_transformers": RouterFamily(
        (
            KnownRouter(
                "SwitchTransformersTop1Router", "softmax", read_capacity, top_k=1, drops=True
            ),
        ),
        "auxiliary",
        coefficient=_LOSS,
        limits="encoder and decoder are counted by one call, so their texts must be alike long",
    ),
    "gemma4_text": _gemma("Gemma4TextRouter"),
    "diffusion_gemma_text": _gemma("DiffusionGemmaTextRouter"),
}

FAMILIES: Mapping[str, RouterFamily] = _AUXILIARY | _BIASED | _UNBALANCED | _OTHERS

# Classes that choose among experts and are not counted, and why.
REFUSED: Mapping[str, str] = {
    "Dots3NoteVisionTopKRouter": "it chooses for patches of images, which have no domain",
    "Inkling2LoopTopKRouter": "layers of its loop run several times in one forward pass, and a"
    " router is counted once",
    "NllbMoeTop2Router": "transformers gives its experts the mask of the first choice for ids, so"
    " that the first two of them alone compute",
    "VitPoseNaiveMoe": "the caller names the expert of each image, none is chosen",
}

ROUTERS: Mapping[str, KnownRouter] = {
    router.name: router for family in FAMILIES.values() for router in family.routers
}


def family_of(model: nn.Module) -> RouterFamily | None:
    """Return what is known of a model's family; None for a model of none.

    Args:
        model: One of transformers', by its configuration's `model_type`; wrapped or not.
    """
    found = _configured(model)
    return found[0] if found else None


def coefficient_of(model: nn.Module) -> Any:
    """Return what a model's auxiliary loss is multiplied by; None where it has no such loss.

    It is what the configuration has, unchecked.
    """
    found = _configured(model)
    if found is None or found[0].coefficient is None:
        return None
    return attrgetter(found[0].coefficient)(found[1])


def _configured(model: nn.Module) -> tuple[RouterFamily, Any] | None:
    for module in model.modules():
        config = getattr(module, "config", None)
        found = FAMILIES.get(getattr(config, "model_type", ""))
        if found is not None:
            return found, config
    return None
