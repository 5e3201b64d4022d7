from .corpus import (
    Corpus as Corpus,
    Domain as Domain,
    bits_per_nat as bits_per_nat,
    check_prepared as check_prepared,
    document_ends as document_ends,
    in_bits_per_byte as in_bits_per_byte,
    publish_corpus as publish_corpus,
    tokens_per_byte as tokens_per_byte,
    true_inventory as true_inventory,
)
from .domain_tokens import counted_tokens as counted_tokens
from .index_files import (
    CORPUS_FORMAT as CORPUS_FORMAT,
    corpus_hash as corpus_hash,
    read_corpus_index as read_corpus_index,
)
from .preparation import prepare_corpus as prepare_corpus
from .sizes import (
    DomainCount as DomainCount,
    count_domains as count_domains,
    first_look as first_look,
    inventory_of as inventory_of,
)
from .sources import shared_files as shared_files
from .tasks import (
    EncodedTask as EncodedTask,
    Item as Item,
    RowBatches as RowBatches,
    WindowBatch as WindowBatch,
    chosen_items as chosen_items,
    encode_task as encode_task,
    read_items as read_items,
    scored_items as scored_items,
    task_files as task_files,
    task_metrics as task_metrics,
    task_rows as task_rows,
    write_task as write_task,
)
from .text_files import FirstRows as FirstRows, builder_of as builder_of, first_rows as first_rows
from .token_import import import_tokens as import_tokens
from .token_shards import (
    MAX_MAPPINGS as MAX_MAPPINGS,
    TokenShards as TokenShards,
    TokenWriter as TokenWriter,
)
from .tokenizer import (
    BYTES as BYTES,
    FastTokenizer as FastTokenizer,
    Tokenizer as Tokenizer,
    check_tokenizer_name as check_tokenizer_name,
    export_tokenizer as export_tokenizer,
    folder_vocabulary as folder_vocabulary,
    known_size as known_size,
    known_tokenizer as known_tokenizer,
    open_tokenizer as open_tokenizer,
    plain_name as plain_name,
    saved_tokenizer as saved_tokenizer,
    vocabulary_of as vocabulary_of,
)
