"""From documents to token shards, and back from shards to a `Corpus`.

Documents are read, deduplicated and split (`domain_text.py`), tokenised, and written as shards of
each domain and split; shards are opened and verified; tokens that other tools wrote are imported.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
