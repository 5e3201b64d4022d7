"""An n-gram model that trains in seconds: for tests and first looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt_proxies.ngram.ngram_proxy import NgramProxy as NgramProxy
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "ngram_proxy": ["NgramProxy"],
        },
    )
