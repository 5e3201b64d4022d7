"""How the experts of a mixture-of-experts model divide the data domains.

    stats = RouterStats.attach(model, domains=["web", "code"])
    with stats.domains(domain_ids, mask):
        loss = model(**batch).loss
    stats.reduce()
    print(stats.summary())

Counting needs torch, tables need polars; both are loaded when they are used.
"""

import lazy_loader as lazy

from mixopt.errors import RoutingError

_load, __dir__, __all__ = lazy.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    try:
        return _load(name)
    except ModuleNotFoundError as error:
        raise RoutingError(
            f"mixopt.routing.{name} needs {error.name}: pip install 'mixopt[all]'"
        ) from error
