"""Turn documents into tokens: raw bytes, a BPE trained on the corpus, or Hugging Face's.

A document is encoded without special tokens, text that looks like one is text, and one
end-of-document token follows it. What ids stand for is a hash of each id's token as a byte-level
vocabulary writes it, so that all three kinds are compared alike; merges, which decide which ids a
text becomes, are left out.

Shapes: V ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixopt.corpus.index_files import INDEX, absent, check_tokenizer, prepared_tokenizer
from mixopt.errors import CorpusError, MixoptError, PluginError
from mixopt.system import IntArray, read_json, replacing, write_json, write_text

if TYPE_CHECKING:
    import tokenizers

BYTES = "bytes"
BPE = "bpe:"
END_OF_DOCUMENT = "<|endoftext|>"
MIN_BPE = 257
FILE = "tokenizer.json"
CONFIG = "tokenizer_config.json"
_NO_BYTE = b"\xff"  # which UTF-8 does not have
_LAST_BYTE = "\u0143"  # of the characters by which a byte-level vocabulary writes bytes
# What tokenizers without a configuration call the end of a document.
_USUAL_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")
_OTHERWISE = "give a local folder, or use bytes or bpe:8192, which need no download"


class Spans(NamedTuple):
    """A text as tokens, and the bytes of its UTF-8 up to the end of each."""

    tokens_T: NDArray[Any]
    end_T: IntArray


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Return the smaller of uint16 and uint32 that holds every id."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


class ByteTokenizer:
    """Ids 0 to 255 are the bytes of UTF-8, and 256 ends a document."""

    vocab_size = 257
    end_of_document = 256

    def encode(self, documents: Sequence[str]) -> NDArray[Any]:
        """Return the bytes of all documents, each followed by 256."""
        content = b"".join(document.encode() + _NO_BYTE for document in documents)
        tokens = np.frombuffer(content, np.uint8).astype(np.uint16)
        tokens[tokens == _NO_BYTE[0]] = self.end_of_document
        return tokens

    def spans(self, texts: Sequence[str]) -> list[Spans]:
        """Return the bytes of each text, nothing added, and the bytes up to each one's end."""
        tokens = [np.frombuffer(text.encode(), np.uint8).astype(np.uint16) for text in texts]
        return [Spans(tokens_T, np.arange(1, len(tokens_T) + 1)) for tokens_T in tokens]

    def decode(self, tokens: NDArray[Any]) -> str:
        """Return the text; an incomplete character at either end becomes U+FFFD."""
        text = tokens[tokens < self.end_of_document].astype(np.uint8)
        return text.tobytes().decode("utf-8", errors="replace")

    def save(self, folder: Path) -> None:
        """Write nothing: bytes need no file."""


class FastTokenizer:
    """A tokenizer of the `tokenizers` library: ours, trained on the corpus, or a hub's."""

    def __init__(self, inner: tokenizers.Tokenizer, end_of_document: str) -> None:
        """Take a tokenizer without its truncation, padding and special tokens."""
        vocabulary = inner.get_vocab(with_added_tokens=True)
        inner.no_truncation()
        inner.no_padding()
        inner.encode_special_tokens = True
        self.inner = inner
        self.end_of_document = vocabulary[end_of_document]
        self.vocab_size = max(vocabulary.values()) + 1

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> FastTokenizer:
        """Train a byte-level BPE, which gives back any text exactly."""
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

    def encode(self, documents: Sequence[str]) -> NDArray[Any]:
        """Return the tokens of all documents, each followed by `end_of_document`."""
        batch = self.inner.encode_batch_fast(list(documents), add_special_tokens=False)
        end = (self.end_of_document,)
        ids = chain.from_iterable(chain(encoding.ids, end) for encoding in batch)
        return np.fromiter(ids, token_dtype(self.vocab_size))

    def spans(self, texts: Sequence[str]) -> list[Spans]:
        """Return the tokens of each text, nothing added, and the bytes up to each one's end."""
        batch = self.inner.encode_batch(list(texts), add_special_tokens=False)
        pairs = zip(texts, batch, strict=True)
        return [
            Spans(np.array(one.ids), _byte_ends(text, one.tokens, one.offsets))
            for text, one in pairs
        ]

    def decode(self, tokens: NDArray[Any]) -> str:
        """Return the text of tokens, without end-of-document tokens."""
        ids = tokens[tokens != self.end_of_document].tolist()
        return str(self.inner.decode(ids, skip_special_tokens=False))

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json`, and what ends a document where that is unusual."""
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
    """Return `bytes` for the folder of a corpus of bytes, which has no file; else the same name."""
    return BYTES if prepared_tokenizer(name) == BYTES else name


def open_tokenizer(name: str, *, download: bool = True) -> Tokenizer:
    """Open a tokenizer that needs no training."""
    if name == BYTES:
        return ByteTokenizer()
    made_with = prepared_tokenizer(name)
    if made_with is not None:
        return saved_tokenizer(Path(name).expanduser(), made_with)
    return FastTokenizer.from_file(_tokenizer_file(name, download), name)


def check_tokenizer_name(name: str) -> None:
    """Check what can be told of a tokenizer without the hub."""
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
    """Return a tokenizer by name or folder; None where its files are not here, or not yet made."""
    try:
        return None if bpe_vocabulary(name) is not None else open_tokenizer(name)
    except (CorpusError, PluginError):
        return None


def saved_tokenizer(folder: Path, name: str) -> Tokenizer:
    """Open the tokenizer that a corpus folder was made with."""
    if name == BYTES:
        return ByteTokenizer()
    if (folder / INDEX).exists():
        check_tokenizer(folder)
    if not (folder / FILE).exists():  # a name would be looked up on the hub
        raise absent(folder / FILE)
    return FastTokenizer.from_file(folder / FILE, name)


def read_inner(path: Path, where: str) -> tokenizers.Tokenizer:
    """Read a `tokenizer.json` as the library has it."""
    from tokenizers import Tokenizer as Inner

    try:
        return Inner.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise CorpusError(f"{where}: cannot be read: {' '.join(str(error).split())}") from error


def _tokenizer_file(name: str, download: bool) -> Path:
    """Return the `tokenizer.json` that a name stands for."""
    local = Path(name).expanduser()
    path: Path | None = local / FILE if local.is_dir() else local
    if not local.exists():
        if _is_path(name):
            raise CorpusError(f"tokenizer {name!r}: no such folder or file; {_OTHERWISE}")
        path, _ = (_fetch(name, file, download) for file in (FILE, CONFIG))
    if path is None or not path.is_file():
        raise CorpusError(
            f"tokenizer {name!r} has no {FILE}: write one, AutoTokenizer.from_pretrained(...)"
            f".save_pretrained(FOLDER), and name the folder, or {_OTHERWISE}"
        )
    return path


def _is_path(name: str) -> bool:
    """Tell a path from a name on the hub."""
    return name.startswith((".", "~", "/")) or name.count("/") > 1


def _end_token(inner: tokenizers.Tokenizer, configured: str | None) -> str | None:
    """Return the token that ends a document: the configuration's, else one of the usual names."""
    vocabulary = inner.get_vocab(with_added_tokens=True)
    return next((end for end in (configured, *_USUAL_ENDS) if end in vocabulary), None)


def _configured_end(path: Path) -> str | None:
    try:
        token = read_json(path, error=CorpusError).get("eos_token")
    except (CorpusError, AttributeError):
        return None
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def _fetch(name: str, file: str, download: bool) -> Path | None:
    """Download one file of a hub repository; None where the repository does not have it."""
    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError as error:
        raise PluginError(
            f"tokenizer {name!r} needs huggingface_hub: pip install 'mixopt[all]'"
        ) from error
    try:
        return Path(hf_hub_download(name, file, local_files_only=not download))
    except errors.LocalEntryNotFoundError as error:
        reason = " is not on this machine and the hub cannot be reached"
        raise CorpusError(f"tokenizer {name!r}{reason}; {_OTHERWISE}") from error
    except errors.EntryNotFoundError:
        return None
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        reason = str(error).split("\n", maxsplit=1)[0]
        raise CorpusError(f"tokenizer {name!r}: {reason}; {_OTHERWISE}") from error


def _byte_ends(text: str, tokens: Sequence[str], offsets: Sequence[tuple[int, int]]) -> IntArray:
    """Return the bytes of a text up to the end of each token, shape (T,)."""
    size = len(text.encode())
    if sum(map(len, tokens)) == size and all(max(token) <= _LAST_BYTE for token in tokens):
        return np.array(list(accumulate(map(len, tokens))), dtype=np.int64)
    bytes_C = np.array([0, *accumulate(len(character.encode()) for character in text)])
    return bytes_C[[stop for _, stop in offsets]]


def known_size(tokenizer: str) -> int | None:
    """Return the ids of a tokenizer that is built in, or whose file is on this machine."""
    try:
        known = bpe_vocabulary(tokenizer)
        return known or open_tokenizer(tokenizer, download=False).vocab_size
    except (MixoptError, ImportError):
        return None


def vocabulary_of(tokenizer: Tokenizer) -> tuple[int, str]:
    """Return how many ids a tokenizer has, and a hash of each id's token.

    Tokenizers of one hash may be used for one another's tokens.
    """
    return _vocabulary(_inner(tokenizer))


def folder_vocabulary(folder: Path) -> tuple[int, str] | None:
    """Return the same of the tokenizer in a model's folder, if it has one."""
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
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": inner.id_to_token(tokenizer.end_of_document),
        "model_max_length": length,
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / CONFIG, about)


class TokenText:
    """The text of tokens; of a byte-level vocabulary lengths are looked up, of others decoded."""

    def __init__(self, tokenizer: Tokenizer, document_end: int | None = None) -> None:
        """Find which tokens are text and how long each is."""
        self._tokenizer = tokenizer
        ends = (tokenizer.end_of_document, document_end)
        special = {end for end in ends if end is not None}
        if isinstance(tokenizer, FastTokenizer):
            added = tokenizer.inner.get_added_tokens_decoder()
            special |= {place for place, token in added.items() if token.special}
        self._special = np.array(sorted(special), np.int64)
        self._bytes_V = _byte_lengths(tokenizer)
        if self._bytes_V is not None:
            self._bytes_V[self._special] = 0

    @property
    def is_quick(self) -> bool:
        """Whether bytes are known without decoding."""
        return self._bytes_V is not None

    def bytes(self, tokens: NDArray[Any]) -> int:
        """Return the length of the text of some tokens, in UTF-8."""
        if self._bytes_V is not None:
            return int(self._bytes_V[tokens].sum())
        return len(self.text(tokens).encode())

    def text(self, tokens: NDArray[Any]) -> str:
        """Return the text of some tokens."""
        return self._tokenizer.decode(tokens[~np.isin(tokens, self._special)])


def _byte_lengths(tokenizer: Tokenizer) -> IntArray | None:
    """Return the bytes of each id, shape (V,), where each token is the same bytes everywhere."""
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
    """Return the library's tokenizer: for bytes a BPE without merges, whose ids are the bytes."""
    if isinstance(tokenizer, FastTokenizer):
        return tokenizer.inner
    from tokenizers import AddedToken, Tokenizer as Inner, decoders, models, pre_tokenizers

    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))  # byte-level vocabularies write other bytes by these
    ids = {chr(byte if byte in printable else next(others)): byte for byte in range(256)}
    inner = Inner(models.BPE(ids, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(END_OF_DOCUMENT, special=True, normalized=False)])
    return inner
