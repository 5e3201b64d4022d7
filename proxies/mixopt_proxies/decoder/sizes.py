"""Named sizes of the decoder; any field can be overridden.

`1m` and `60m` have the shapes of RegMix's TinyLlama 1M and 60M (sail-sg/regmix, MIT,
`lit_gpt/config.py`): layers, width, heads and feed-forward width; their learning rate, warm-up,
decay and clipping are also RegMix's. Two things differ: the vocabulary is the corpus's, and a step
has far fewer sequences (RegMix: 512), since with a million tokens a proxy learns more from many
small steps than from few large ones. `tiny` is our own size, for bytes and one CPU core: a million
tokens in about ten seconds. With half a million tokens of six domains its mean held-out loss was
2.15 nats per byte with 4 sequences of 128 per step and 2.21 with 8; a third layer improved it by
0.03 and took 1.4 times the time, a width of 96 or 128 did not improve it this early.

`moe-tiny` and `moe-1m` are `tiny` and `1m` with eight experts, two per token, which together have
the weights of the dense feed-forward.
"""

from collections.abc import Mapping
from dataclasses import fields, replace

from mixopt.errors import ConfigError, did_you_mean
from mixopt_proxies.decoder.size_options import DecoderSize, built

OPTIONS = tuple(field.name for field in fields(DecoderSize))
OF_EXPERTS = ("experts", "top_k", "expert_ff", "balance_weight")
OF_SHAPE = ("layers", "width", "heads", "ff", "tied", *OF_EXPERTS)
_REGMIX = DecoderSize(
    layers=2,
    width=256,
    heads=8,
    ff=512,
    sequence_length=2048,
    batch=8,
    tied=False,
    lr=4e-4,
    warmup=100,
    schedule="constant",
)

_TINY = replace(
    _REGMIX,
    width=64,
    heads=2,
    ff=192,
    sequence_length=128,
    batch=4,
    tied=True,
    lr=3.5e-3,
    warmup=0.05,
    schedule="cosine",
)

SIZES: dict[str, DecoderSize] = {
    "tiny": _TINY,
    "moe-tiny": replace(_TINY, experts=8, expert_ff=96),
    "1m": _REGMIX,
    "moe-1m": replace(_REGMIX, experts=8, expert_ff=256),
    "60m": replace(_REGMIX, layers=10, width=768, ff=1536),
}


def make_size(name: str, **overrides: object) -> DecoderSize:
    """Return a named size with the fields of `overrides` that are not None."""
    if name not in SIZES:
        raise ConfigError(f"proxy.options.size: {name!r} is not a size{did_you_mean(name, SIZES)}")
    base = SIZES[name]
    changed = {option: value for option, value in overrides.items() if value is not None}
    base_options = {option: getattr(base, option) for option in OPTIONS}
    size: DecoderSize = built(DecoderSize, base_options | changed)
    if changed.get("experts") == 0:
        raise ConfigError("proxy.options.experts: 0 must be at least 2")
    _check_used(size, changed)
    if size.experts and not base.experts and "expert_ff" not in changed:
        # A token's experts have as many weights as the dense feed-forward.
        return replace(size, expert_ff=max(8, base.ff // size.top_k // 8 * 8))
    return size


def _check_used(size: DecoderSize, changed: Mapping[str, object]) -> None:
    """Raise if an option was changed that a size with, or without, experts does not use."""
    if size.experts:
        unused: tuple[str, ...] = ("ff",)
        why = "with experts: set expert_ff"
    else:
        unused = OF_EXPERTS
        why = "without experts: set experts, or size: moe-tiny"
    for option in unused:
        if option in changed:
            value = changed[option]
            raise ConfigError(f"proxy.options.{option}: {value!r} has no effect {why}")
