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
    from mixopt.corpus.document_end_ids import document_ends as document_ends
    from mixopt.corpus.domain_counts import (
        DomainCount as DomainCount,
        count_domains as count_domains,
        inventory_of as inventory_of,
    )
    from mixopt.corpus.identity import (
        corpus_hash as corpus_hash,
    )
    from mixopt.corpus.index_files import (
        StreamIndex as StreamIndex,
        read_corpus_index as read_corpus_index,
        read_domain_names as read_domain_names,
        read_stream_index as read_stream_index,
    )
    from mixopt.corpus.preparation import (
        prepare_corpus as prepare_corpus,
    )
    from mixopt.corpus.shard import FEW as FEW, Shard as Shard
    from mixopt.corpus.shard_store import ShardStore as ShardStore
    from mixopt.corpus.source_check import (
        check_source as check_source,
    )
    from mixopt.corpus.stored_corpus import (
        check_prepared as check_prepared,
        corpus_files as corpus_files,
        publish_corpus as publish_corpus,
        put_in_place as put_in_place,
        stored_shards as stored_shards,
    )
    from mixopt.corpus.stream_preparation import (
        prepare_stream as prepare_stream,
    )
    from mixopt.corpus.task_preparation import scored_items as scored_items
    from mixopt.corpus.text.document_stream import (
        DocumentStream as DocumentStream,
    )
    from mixopt.corpus.text.documents import (
        BadDocuments as BadDocuments,
    )
    from mixopt.corpus.text.first_rows import (
        FirstRows as FirstRows,
        column_pairs as column_pairs,
        first_rows as first_rows,
    )
    from mixopt.corpus.text.readers import builder_of as builder_of
    from mixopt.corpus.text.sources import (
        check_files as check_files,
    )
    from mixopt.corpus.token_files import (
        counted_tokens as counted_tokens,
    )
    from mixopt.corpus.token_import import (
        import_tokens as import_tokens,
    )
    from mixopt.corpus.token_preparation import (
        known_tokenizer as known_tokenizer,
    )
    from mixopt.corpus.token_shards import (
        TokenShards as TokenShards,
    )
    from mixopt.corpus.token_writer import (
        TokenWriter as TokenWriter,
    )
    from mixopt.corpus.tokenizer import (
        BYTES as BYTES,
        FastTokenizer as FastTokenizer,
        Tokenizer as Tokenizer,
        open_tokenizer as open_tokenizer,
        plain_name as plain_name,
        saved_tokenizer as saved_tokenizer,
    )
    from mixopt.corpus.tokenizer_export import export_tokenizer as export_tokenizer
    from mixopt.corpus.true_sizes import (
        tokens_per_byte as tokens_per_byte,
        true_inventory as true_inventory,
    )
    from mixopt.corpus.vocabulary import (
        known_vocabulary as known_vocabulary,
    )
    from mixopt.corpus.vocabulary_identity import (
        VocabularyIdentity as VocabularyIdentity,
        byte_tokens as byte_tokens,
        folder_vocabulary as folder_vocabulary,
        identity_of as identity_of,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "corpus": ["Corpus", "Domain", "FORMAT", "NamedDomains"],
            "document_end_ids": ["document_ends"],
            "domain_counts": ["DomainCount", "count_domains", "inventory_of"],
            "identity": ["corpus_hash"],
            "index_files": [
                "StreamIndex",
                "read_corpus_index",
                "read_domain_names",
                "read_stream_index",
            ],
            "preparation": ["prepare_corpus"],
            "shard": ["FEW", "Shard"],
            "shard_store": ["ShardStore"],
            "source_check": ["check_source"],
            "stored_corpus": [
                "check_prepared",
                "corpus_files",
                "publish_corpus",
                "put_in_place",
                "stored_shards",
            ],
            "stream_preparation": ["prepare_stream"],
            "text.document_stream": ["DocumentStream"],
            "text.documents": ["BadDocuments"],
            "text.first_rows": ["FirstRows", "column_pairs", "first_rows"],
            "text.readers": ["builder_of"],
            "text.sources": ["check_files"],
            "task_preparation": ["scored_items"],
            "token_files": ["counted_tokens"],
            "token_import": ["import_tokens"],
            "token_preparation": ["known_tokenizer"],
            "token_shards": ["TokenShards"],
            "token_writer": ["TokenWriter"],
            "tokenizer": [
                "BYTES",
                "FastTokenizer",
                "Tokenizer",
                "open_tokenizer",
                "plain_name",
                "saved_tokenizer",
            ],
            "tokenizer_export": ["export_tokenizer"],
            "true_sizes": ["tokens_per_byte", "true_inventory"],
            "vocabulary": ["known_vocabulary"],
            "vocabulary_identity": [
                "VocabularyIdentity",
                "byte_tokens",
                "folder_vocabulary",
                "identity_of",
            ],
        },
    )
