"""Other people's trainers: the configuration that each reads, and loader and driver inside them.

Writing a configuration needs no framework. What works inside one needs it: transformers' Trainer,
Lightning, torch.distributed.checkpoint, torchtitan, Megatron-Core.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
