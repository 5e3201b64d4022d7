"""From documents to token shards, and back from shards to a `Corpus`.

`mixopt.corpus.text` reads, extracts, deduplicates and splits documents; this package tokenizes
them, writes the shards of each domain and split, opens and verifies them, and imports the tokens
that other tools wrote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.corpus.corpus import (
        FORMAT as FORMAT,
        Corpus as Corpus,
        Domain as Domain,
        NamedDomains as NamedDomains,
    )
    from mixopt.corpus.domain_counts import (
        DomainCount as DomainCount,
        count_domains as count_domains,
        inventory_of as inventory_of,
    )
    from mixopt.corpus.identity import corpus_hash as corpus_hash
    from mixopt.corpus.index_files import (
        StreamIndex as StreamIndex,
        read_corpus_index as read_corpus_index,
        read_domain_names as read_domain_names,
        read_stream_index as read_stream_index,
    )
    from mixopt.corpus.preparation import prepare_corpus as prepare_corpus
    from mixopt.corpus.stream_preparation import prepare_stream as prepare_stream
    from mixopt.corpus.text.document_stream import DocumentStream as DocumentStream
    from mixopt.corpus.text.documents import BadDocuments as BadDocuments
    from mixopt.corpus.text.sources import check_files as check_files
    from mixopt.corpus.token_import import import_tokens as import_tokens
    from mixopt.corpus.token_shards import TokenShards as TokenShards
    from mixopt.corpus.token_writer import TokenWriter as TokenWriter
    from mixopt.corpus.tokenizer import (
        BYTES as BYTES,
        FastTokenizer as FastTokenizer,
        Tokenizer as Tokenizer,
        open_tokenizer as open_tokenizer,
        saved_tokenizer as saved_tokenizer,
    )
    from mixopt.corpus.true_sizes import (
        tokens_per_byte as tokens_per_byte,
        true_inventory as true_inventory,
    )
    from mixopt.corpus.vocabulary import known_vocabulary as known_vocabulary
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "corpus": ["Corpus", "Domain", "FORMAT", "NamedDomains"],
            "identity": ["corpus_hash"],
            "domain_counts": ["DomainCount", "count_domains", "inventory_of"],
            "index_files": [
                "StreamIndex",
                "read_corpus_index",
                "read_domain_names",
                "read_stream_index",
            ],
            "preparation": ["prepare_corpus"],
            "stream_preparation": ["prepare_stream"],
            "text.document_stream": ["DocumentStream"],
            "text.documents": ["BadDocuments"],
            "token_import": ["import_tokens"],
            "token_shards": ["TokenShards"],
            "token_writer": ["TokenWriter"],
            "text.sources": ["check_files"],
            "tokenizer": [
                "BYTES",
                "FastTokenizer",
                "Tokenizer",
                "open_tokenizer",
                "saved_tokenizer",
            ],
            "true_sizes": ["tokens_per_byte", "true_inventory"],
            "vocabulary": ["known_vocabulary"],
        },
    )
