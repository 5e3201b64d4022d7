"""Turn documents into tokens: raw bytes, a BPE trained on the corpus, or a Hugging Face tokenizer.

A document is encoded without special tokens (text that looks like one stays text), and one
end-of-document token follows it. A vocabulary hash covers each id's token in byte-level form, so
that all three kinds are comparable; it omits merges, which decide the ids of a text but not their
meaning.

Shapes: V ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import accumulate, chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mixopt.corpus.index_files import ABSENT, INDEX, check_tokenizer, prepared_tokenizer
from mixopt.errors import CorpusError, MixoptError, PluginError
from mixopt.system import (
    AnyArray,
    DType,
    IntArray,
    int_array,
    needed_by,
    one_line,
    read_json,
    replacing,
    write_json,
    write_text,
)

if TYPE_CHECKING:
    import tokenizers

BYTES = "bytes"
BPE = "bpe:"
END_OF_DOCUMENT = "<|endoftext|>"
MIN_BPE = 257
FILE = "tokenizer.json"
CONFIG = "tokenizer_config.json"
_NO_BYTE = b"\xff"  # never occurs in UTF-8
# Usual end-of-document tokens, for tokenizers without a configuration.
_USUAL_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")
_ALTERNATIVES = "name a local folder, or use bytes or bpe:8192, which need no download"


class Spans(NamedTuple):
    """The tokens of a text, and the UTF-8 bytes up to the end of each token."""

    tokens_T: AnyArray
    end_T: IntArray


def token_dtype(vocab_size: int) -> DType:
    """Return the smaller of uint16 and uint32 that holds every id."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


class ByteTokenizer:
    """Ids 0 to 255 are the bytes of UTF-8, and 256 ends a document."""

    vocab_size = 257
    end_of_document = 256

    def encode(self, documents: Sequence[str]) -> AnyArray:
        """Return the bytes of all documents, each followed by 256."""
        content = b"".join(document.encode() + _NO_BYTE for document in documents)
        tokens = np.frombuffer(content, np.uint8).astype(np.uint16)
        tokens[tokens == _NO_BYTE[0]] = self.end_of_document
        return tokens

    def spans(self, texts: Sequence[str]) -> list[Spans]:
        """Return the tokens of each text, without end-of-document, and their byte ends."""
        tokens = [np.frombuffer(text.encode(), np.uint8).astype(np.uint16) for text in texts]
        return [Spans(tokens_T, np.arange(1, len(tokens_T) + 1)) for tokens_T in tokens]

    def decode(self, tokens: AnyArray) -> str:
        """Return the text; an incomplete character at either end becomes U+FFFD."""
        text = tokens[tokens < self.end_of_document].astype(np.uint8)
        return text.tobytes().decode("utf-8", errors="replace")

    def save(self, folder: Path) -> None:
        """Do nothing: bytes need no file."""


class FastTokenizer:
    """A tokenizer of the `tokenizers` library, trained on the corpus or loaded from a file."""

    def __init__(self, inner: tokenizers.Tokenizer, end_of_document: str) -> None:
        """Wrap a tokenizer; disable its truncation, padding and special tokens."""
        vocabulary = inner.get_vocab(with_added_tokens=True)
        inner.no_truncation()
        inner.no_padding()
        inner.encode_special_tokens = True
        self.inner = inner
        self.end_of_document = vocabulary[end_of_document]
        self.vocab_size = max(vocabulary.values()) + 1

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> FastTokenizer:
        """Train a byte-level BPE, which reproduces any text exactly."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        inner = Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[END_OF_DOCUMENT],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        inner.train_from_iterator(texts, trainer)
        return cls(inner, END_OF_DOCUMENT)

    @classmethod
    def from_file(cls, path: Path, name: str) -> FastTokenizer:
        """Read a `tokenizer.json`."""
        inner = read_inner(path, f"tokenizer {name!r}: {path}")
        configuration = path.with_name(CONFIG)
        end = _end_token(inner, _configured_end(configuration))
        if end is None:
            raise CorpusError(
                f"tokenizer {name!r} has no end-of-document token: {configuration}"
                f" names none as eos_token and none of {', '.join(_USUAL_ENDS)} is in its"
                " vocabulary"
            )
        return cls(inner, end)

    def encode(self, documents: Sequence[str]) -> AnyArray:
        """Return the tokens of all documents, each followed by `end_of_document`."""
        batch = self.inner.encode_batch_fast(list(documents), add_special_tokens=False)
        end = (self.end_of_document,)
        ids = chain.from_iterable(chain(encoding.ids, end) for encoding in batch)
        return np.fromiter(ids, token_dtype(self.vocab_size))

    def spans(self, texts: Sequence[str]) -> list[Spans]:
        """Return the tokens of each text, without end-of-document, and their byte ends."""
        batch = self.inner.encode_batch(list(texts), add_special_tokens=False)
        bytes_V, spans = _byte_lengths(self), list[Spans]()
        for text, encoding in zip(texts, batch, strict=True):
            ids = int_array(encoding.ids)
            end_T = None if bytes_V is None else np.cumsum(bytes_V[ids])
            if end_T is None or end_T[-1:].sum() != len(text.encode()):  # by character
                bytes_C = np.array([0, *accumulate(len(c.encode()) for c in text)])
                end_T = bytes_C[[stop for _, stop in encoding.offsets]]
            spans.append(Spans(ids, end_T))
        return spans

    def decode(self, tokens: AnyArray) -> str:
        """Return the text of tokens, without end-of-document tokens."""
        ids = tokens[tokens != self.end_of_document].tolist()
        return str(self.inner.decode(ids, skip_special_tokens=False))

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json`, and the end-of-document token if it is not the default."""
        with replacing(folder / FILE) as temporary:
            self.inner.save(str(temporary))
        end = self.inner.id_to_token(self.end_of_document)
        if _end_token(self.inner, None) != end:
            write_text(folder / CONFIG, json.dumps({"eos_token": end}))


Tokenizer = ByteTokenizer | FastTokenizer


def bpe_vocabulary(name: str) -> int | None:
    """Return the vocabulary of `bpe:<vocab>`, None for other tokenizers."""
    if not name.startswith(BPE):
        return None
    size = name.removeprefix(BPE).replace("_", "")
    if not size.isdecimal() or int(size) < MIN_BPE:
        raise CorpusError(
            f"corpus.tokenizer: {name!r}: a byte-level BPE has at least {MIN_BPE} ids"
            " (256 bytes and the end of a document), as in bpe:8192"
        )
    return int(size)


def plain_name(name: str) -> str:
    """Return `bytes` for a corpus folder with the byte tokenizer, else the name unchanged."""
    return BYTES if prepared_tokenizer(name) == BYTES else name


def open_tokenizer(name: str, *, download: bool = True) -> Tokenizer:
    """Open a tokenizer that needs no training."""
    if name == BYTES:
        return ByteTokenizer()
    stored_name = prepared_tokenizer(name)
    if stored_name is not None:
        return saved_tokenizer(Path(name).expanduser(), stored_name)
    return FastTokenizer.from_file(_tokenizer_file(name, download), name)


def check_tokenizer_name(name: str) -> None:
    """Check a tokenizer's name as far as possible without the hub."""
    if name == BYTES or bpe_vocabulary(name) is not None:
        return
    if ":" in name and not Path(name).expanduser().exists():
        size = name.partition(":")[2]
        near = f"; did you mean {BPE}{size}?" if size.replace("_", "").isdecimal() else ""
        raise CorpusError(
            f"tokenizer {name!r}: is not bytes, bpe:<vocab>, a folder or a name on the hub{near}"
        )
    if Path(name).expanduser().exists() or _is_path(name):
        open_tokenizer(name)


def known_tokenizer(name: str) -> Tokenizer | None:
    """Return a tokenizer by name or folder; None: its files are not here, or not yet trained."""
    with suppress(CorpusError, PluginError):
        return None if bpe_vocabulary(name) is not None else open_tokenizer(name)
    return None


def saved_tokenizer(folder: Path, name: str) -> Tokenizer:
    """Open the tokenizer of a corpus folder."""
    if name == BYTES:
        return ByteTokenizer()
    if (folder / INDEX).exists():
        check_tokenizer(folder)
    if not (folder / FILE).exists():  # a name would be looked up on the hub
        raise CorpusError(f"{folder / FILE}: {ABSENT}")
    return FastTokenizer.from_file(folder / FILE, name)


def read_inner(path: Path, where: str) -> tokenizers.Tokenizer:
    """Read a `tokenizer.json` with the `tokenizers` library."""
    from tokenizers import Tokenizer as Inner

    try:
        return Inner.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise CorpusError(f"{where}: cannot be read: {one_line(error)}") from error


def _tokenizer_file(name: str, download: bool) -> Path:
    """Return the path of the `tokenizer.json` of a name; download it if needed."""
    local = Path(name).expanduser()
    path: Path | None = local / FILE if local.is_dir() else local
    if not local.exists():
        if _is_path(name):
            raise CorpusError(f"tokenizer {name!r}: no such folder or file; {_ALTERNATIVES}")
        path = _fetch(name, FILE, download)
        _fetch(name, CONFIG, download)
    if path is None or not path.is_file():
        raise CorpusError(
            f"tokenizer {name!r} has no {FILE}: write one, AutoTokenizer.from_pretrained(...)"
            f".save_pretrained(FOLDER), and name the folder, or {_ALTERNATIVES}"
        )
    return path


def _is_path(name: str) -> bool:
    """Return whether a name is a path rather than a name on the hub."""
    return name.startswith((".", "~", "/")) or name.count("/") > 1


def _end_token(inner: tokenizers.Tokenizer, configured: str | None) -> str | None:
    """Return the end-of-document token: the configured one, else one of the usual names."""
    vocabulary = inner.get_vocab(with_added_tokens=True)
    for end in (configured, *_USUAL_ENDS):
        if end in vocabulary:
            return end
    return None


def _configured_end(path: Path) -> str | None:
    token = None
    with suppress(CorpusError, AttributeError):
        token = read_json(path, error=CorpusError).get("eos_token")
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def _fetch(name: str, file: str, download: bool) -> Path | None:
    """Download one file of a hub repository; return None if the repository lacks it."""
    with needed_by(f"tokenizer {name!r}"):
        from huggingface_hub import errors, hf_hub_download
    try:
        return Path(hf_hub_download(name, file, local_files_only=not download))
    except errors.LocalEntryNotFoundError as error:
        reason = " is not on this machine and the hub cannot be reached"
        raise CorpusError(f"tokenizer {name!r}{reason}; {_ALTERNATIVES}") from error
    except errors.EntryNotFoundError:
        return None
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        reason = str(error).split("\n", maxsplit=1)[0]
        raise CorpusError(f"tokenizer {name!r}: {reason}; {_ALTERNATIVES}") from error


def known_size(tokenizer: str) -> int | None:
    """Return the number of ids of a built-in or local tokenizer; None: unknown."""
    with suppress(MixoptError, ImportError):
        vocabulary = bpe_vocabulary(tokenizer)
        return vocabulary or open_tokenizer(tokenizer, download=False).vocab_size
    return None


def vocabulary_of(tokenizer: Tokenizer) -> tuple[int, str]:
    """Return a tokenizer's number of ids, and a hash of each id's token.

    Tokenizers with equal hashes can decode each other's tokens.
    """
    return _vocabulary(_inner(tokenizer))


def folder_vocabulary(folder: Path) -> tuple[int, str] | None:
    """Return `vocabulary_of` the tokenizer in a model's folder; None: it has none."""
    if not (folder / FILE).is_file():
        return None
    return _vocabulary(read_inner(folder / FILE, str(folder / FILE)))


def _vocabulary(inner: tokenizers.Tokenizer) -> tuple[int, str]:
    ids = inner.get_vocab(with_added_tokens=True)
    pairs = sorted((place, token) for token, place in ids.items())
    text = "".join(f"{place} {json.dumps(token)}\n" for place, token in pairs)
    size = max(ids.values(), default=-1) + 1
    return size, hashlib.sha256(text.encode()).hexdigest()


def export_tokenizer(tokenizer: Tokenizer, folder: Path, *, length: int) -> None:
    """Write a tokenizer as `AutoTokenizer.from_pretrained` reads it, with the same ids."""
    inner = _inner(tokenizer)
    inner.save(str(folder / FILE))
    content = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": inner.id_to_token(tokenizer.end_of_document),
        "model_max_length": length,
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / CONFIG, content)


class TokenText:
    """Text and byte lengths of tokens; lengths are looked up for byte-level vocabularies.

    Without a tokenizer, the text of all tokens is empty.
    """

    def __init__(self, tokenizer: Tokenizer | None, document_end: int | None = None) -> None:
        """Find the special tokens and the byte length of each token."""
        self._tokenizer = tokenizer
        ends = (tokenizer and tokenizer.end_of_document, document_end)
        special = {end for end in ends if end is not None}
        if isinstance(tokenizer, FastTokenizer):
            added = tokenizer.inner.get_added_tokens_decoder()
            special |= {place for place, token in added.items() if token.special}
        self._special = int_array(sorted(special))
        self._bytes_V = None if tokenizer is None else _byte_lengths(tokenizer)
        if self._bytes_V is not None:
            self._bytes_V[self._special] = 0

    @property
    def is_quick(self) -> bool:
        """Whether byte lengths are known without decoding."""
        return self._bytes_V is not None

    def bytes(self, tokens: AnyArray) -> int:
        """Return the UTF-8 length of the text of tokens."""
        if self._bytes_V is not None:
            return int(self._bytes_V[tokens].sum())
        return len(self.text(tokens).encode())

    def text(self, tokens: AnyArray) -> str:
        """Return the text of tokens, without special tokens."""
        if self._tokenizer is None:
            return ""
        return self._tokenizer.decode(tokens[~np.isin(tokens, self._special)])


def _byte_lengths(tokenizer: Tokenizer) -> IntArray | None:
    """Return the byte length of each id, shape (V,); None: it depends on context."""
    if isinstance(tokenizer, ByteTokenizer):
        return np.ones(tokenizer.vocab_size, np.int64)
    if type(tokenizer.inner.decoder).__name__ != "ByteLevel":
        return None
    bytes_V = np.zeros(tokenizer.vocab_size, np.int64)
    for token, place in tokenizer.inner.get_vocab(with_added_tokens=True).items():
        bytes_V[place] = len(token)
    for place, added in tokenizer.inner.get_added_tokens_decoder().items():
        bytes_V[place] = len(added.content.encode())
    return bytes_V


def _inner(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """Return the library's tokenizer; for bytes, a BPE without merges whose ids are the bytes."""
    if isinstance(tokenizer, FastTokenizer):
        return tokenizer.inner
    from tokenizers import AddedToken, Tokenizer as Inner, decoders, models, pre_tokenizers

    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    substitutes = iter(range(0x100, 0x200))  # stand for the other bytes in byte-level vocabularies
    ids = {chr(byte if byte in printable else next(substitutes)): byte for byte in range(256)}
    inner = Inner(models.BPE(ids, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(END_OF_DOCUMENT, special=True, normalized=False)])
    return inner
