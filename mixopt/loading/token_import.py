"""Import the tokens of other tools: `import_tokens`, which is `mixopt.corpus.token_import`'s."""

from __future__ import annotations

from mixopt.corpus import import_tokens

__all__ = ["import_tokens"]
