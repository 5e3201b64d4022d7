"""Use a mixture in other trainers: write their configuration, or run our loader inside them.

Writing a configuration needs no framework. The modules that run inside one need it: transformers'
Trainer, Lightning, torch.distributed.checkpoint, torchtitan, Megatron-Core.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
