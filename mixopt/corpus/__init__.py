"""From documents to token shards, and back from shards to a `Corpus`.

`mixopt.corpus.text` reads, extracts, deduplicates and splits documents; this package tokenizes
them, writes the shards of each domain and split, opens and verifies them, and imports the tokens
that other tools wrote.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
