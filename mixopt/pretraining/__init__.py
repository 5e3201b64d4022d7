"""Pretrain a causal language model on a mixture that may change while it trains.

`mixopt pretrain CONFIG --out DIR`, on several processes `torchrun --nproc-per-node N -m mixopt
pretrain CONFIG --out DIR`. torch is imported by what needs it only.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
