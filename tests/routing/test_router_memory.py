"""What is counted of a large model has a size that is known beforehand, and does not grow."""

import torch
from torch import nn

from mixopt.routing import RouterStats, RouterTap

LAYERS, EXPERTS, TOP_K, DOMAINS = 61, 256, 8, 20


def counted_bytes(stats):
    tensors = [t for c in stats._counters for t in (c.counts, c.passes)]
    return sum(t.numel() * t.element_size() for t in tensors)


def kept_bytes(assignments):
    return sum(layer.counts_HDE.nbytes for layer in assignments.layers)


def test_counts_of_61_layers_of_256_experts_in_20_domains_take_megabytes_and_do_not_grow():
    model = nn.ModuleList([RouterTap(experts=EXPERTS, top_k=TOP_K) for _ in range(LAYERS)])
    stats = RouterStats.attach(model.train(), [f"domain {d}" for d in range(DOMAINS)])
    logits = torch.randn(4 * 16, EXPERTS)
    ids = logits.topk(TOP_K).indices
    sizes = []
    for _ in range(3):
        with stats.domains(torch.arange(4), torch.ones(4, 16)):
            for tap in model:
                tap(ids)
        sizes.append((counted_bytes(stats), kept_bytes(stats.total())))
        assert stats._batch.rows_T is None
    assert len(set(sizes)) == 1
    on_device, on_host = sizes[0]
    assert on_device < 8.5e6
    assert on_host < 14e6
