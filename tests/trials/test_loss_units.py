"""Losses in bits per byte are known of all evaluation domains or of none."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mixopt.trials import bits_per_nat, in_bits_per_byte


@dataclass
class Shards:
    tokens: int
    bytes: int


@dataclass
class Domain:
    name: str
    validation: Shards


def test_a_nat_per_token_is_tokens_for_each_byte_in_bits():
    domains = [Domain("web", Shards(100, 400)), Domain("code", Shards(50, 100))]
    assert bits_per_nat(domains) == {"web": 0.25 / math.log(2), "code": 0.5 / math.log(2)}
    assert in_bits_per_byte({"web": 2.0}, domains) == {"web": 0.5 / math.log(2)}


def test_one_domain_whose_bytes_are_not_known_leaves_nats_alone():
    domains = [Domain("web", Shards(100, 400)), Domain("code", Shards(50, 0))]
    assert bits_per_nat(domains) is None
    assert in_bits_per_byte({"web": 2.0, "code": 1.0}, domains) == {}
