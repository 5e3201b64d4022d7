"""Pretrain a causal language model on a mixture that may change while it trains.

`mixopt pretrain CONFIG --out DIR`, on several processes `torchrun --nproc-per-node N -m mixopt
pretrain CONFIG --out DIR`. torch is imported only where needed.
"""

import lazy_loader as lazy

from mixopt.errors import ConfigError

_load, __dir__, __all__ = lazy.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    try:
        return _load(name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"pretraining needs {error.name}: pip install 'mixopt[all]'") from error
