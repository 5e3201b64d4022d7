"""The loader and the online driver inside other people's frameworks, and mixtures in their form.

Each module needs its framework: transformers' Trainer, Lightning, torch.distributed.checkpoint,
torchtitan, Megatron-Core.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
