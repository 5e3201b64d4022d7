from .corpus import (
    FORMAT as FORMAT,
    Corpus as Corpus,
    Domain as Domain,
    NamedDomains as NamedDomains,
)
from .document_end_ids import document_ends as document_ends
from .domain_counts import (
    DomainCount as DomainCount,
    count_domains as count_domains,
    inventory_of as inventory_of,
)
from .identity import corpus_hash as corpus_hash
from .index_files import (
    StreamIndex as StreamIndex,
    read_corpus_index as read_corpus_index,
    read_domain_names as read_domain_names,
    read_stream_index as read_stream_index,
)
from .preparation import prepare_corpus as prepare_corpus
from .shard import FEW as FEW, Shard as Shard
from .shard_store import ShardStore as ShardStore
from .source_check import check_source as check_source
from .stored_corpus import (
    check_prepared as check_prepared,
    corpus_files as corpus_files,
    publish_corpus as publish_corpus,
    put_in_place as put_in_place,
    stored_shards as stored_shards,
)
from .stream_preparation import prepare_stream as prepare_stream
from .task_preparation import scored_items as scored_items
from .text.document_stream import DocumentStream as DocumentStream
from .text.documents import BadDocuments as BadDocuments
from .text.first_rows import (
    FirstRows as FirstRows,
    column_pairs as column_pairs,
    first_rows as first_rows,
)
from .text.readers import builder_of as builder_of
from .text.sources import check_files as check_files
from .token_files import counted_tokens as counted_tokens
from .token_import import import_tokens as import_tokens
from .token_preparation import known_tokenizer as known_tokenizer
from .token_shards import TokenShards as TokenShards
from .token_writer import TokenWriter as TokenWriter
from .tokenizer import (
    BYTES as BYTES,
    FastTokenizer as FastTokenizer,
    Tokenizer as Tokenizer,
    open_tokenizer as open_tokenizer,
    plain_name as plain_name,
    saved_tokenizer as saved_tokenizer,
)
from .tokenizer_export import export_tokenizer as export_tokenizer
from .true_sizes import tokens_per_byte as tokens_per_byte, true_inventory as true_inventory
from .vocabulary import known_vocabulary as known_vocabulary
from .vocabulary_identity import (
    VocabularyIdentity as VocabularyIdentity,
    byte_tokens as byte_tokens,
    folder_vocabulary as folder_vocabulary,
    identity_of as identity_of,
)
