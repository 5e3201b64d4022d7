"""Write a tokenizer as transformers reads it: `AutoTokenizer.from_pretrained` gives the same ids.

Text that looks like a special token is one there, unless it is encoded with
`split_special_tokens=True`; in a corpus it is text.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mixopt.corpus.tokenizer import (
    END_OF_DOCUMENT,
    FILE,
    ByteTokenizer,
    FastTokenizer,
    Tokenizer,
    TransformersTokenizer,
)
from mixopt.corpus.vocabulary_identity import byte_tokens
from mixopt.errors import CorpusError
from mixopt.system import write_json

if TYPE_CHECKING:
    import tokenizers


def export_tokenizer(tokenizer: Tokenizer, folder: Path, *, length: int) -> None:
    """Write the files of a tokenizer into a model's folder; its `eos_token` ends a document.

    Args:
        tokenizer: What is written.
        folder: Where to; it exists.
        length: Most tokens that the model reads at once.

    Raises:
        CorpusError: It is of no kind that transformers reads.
    """
    if isinstance(tokenizer, TransformersTokenizer):
        tokenizer.inner.save_pretrained(folder)
        return
    if isinstance(tokenizer, ByteTokenizer):
        inner = _of_bytes()
    elif isinstance(tokenizer, FastTokenizer):
        inner = tokenizer.inner
    else:
        raise CorpusError(f"{type(tokenizer).__name__}: is no tokenizer that transformers reads")
    inner.save(str(folder / FILE))
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": inner.id_to_token(tokenizer.end_of_document),
        "model_max_length": length,
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / "tokenizer_config.json", about)


def _of_bytes() -> tokenizers.Tokenizer:
    """Return a byte-level BPE without merges, whose ids are the bytes."""
    from tokenizers import AddedToken, Tokenizer as Inner, decoders, models, pre_tokenizers

    vocabulary = {token: byte for byte, token in enumerate(byte_tokens())}
    inner = Inner(models.BPE(vocabulary, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(END_OF_DOCUMENT, special=True, normalized=False)])
    return inner
