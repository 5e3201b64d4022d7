"""Assignments of the tiny model with experts: as RouterStats counts them, and token by token."""

from collections import Counter

import numpy as np
from routing_job import DOMAINS, TOP_K


def run(model, stats, data, *, backward_inside=False):
    for tokens, ids, mask in data:
        with stats.domains(ids, mask):
            loss = model(tokens).square().mean()
            if backward_inside:
                loss.backward()
        if not backward_inside:
            loss.backward()


def by_hand(model, data):
    """Count assignments from the routers' logits, token by token."""
    counts = Counter()
    for tokens, ids, mask in data:
        x = model.embedding(tokens)
        for number, layer in enumerate(model.layers):
            if number:
                chosen = layer.router(x).topk(TOP_K).indices
                for b, s in np.ndindex(*tokens.shape):
                    if mask[b, s]:
                        for expert in chosen[b, s].tolist():
                            counts[DOMAINS[ids[b]], number, expert] += 1
            x = x + layer(x)
    return counts


def counted(stats):
    rows = stats.table().select("domain", "layer", "expert", "tokens").rows()
    return Counter({tuple(key): tokens for *key, tokens in rows if tokens})


def same(first, other):
    return first.to_json() == other.to_json()
