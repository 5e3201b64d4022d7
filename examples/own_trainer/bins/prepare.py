"""Make data as nanoGPT has it, a folder for each domain: `train.bin` and `val.bin`.

python examples/own_trainer/bins/prepare.py data

Tokens are the bytes of Python's own library in two bytes each: sources, and docstrings.
"""

import ast
import sys
import sysconfig
from pathlib import Path

import numpy as np

LIBRARY, MOST = Path(sysconfig.get_paths()["stdlib"]), 300_000


def docstrings(source):
    """Return the docstrings of a module, one after the other."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found = (ast.get_docstring(n) for n in ast.walk(ast.parse(source)) if isinstance(n, kinds))
    return "\n\n".join(text for text in found if text)


sources = [path.read_text(encoding="utf-8") for path in sorted(LIBRARY.glob("[a-t]*.py"))]
texts = {"code": "\n".join(sources), "prose": "\n".join(docstrings(one) for one in sources)}
for name, text in texts.items():
    tokens = np.frombuffer(text.encode()[:MOST], np.uint8).astype(np.uint16)
    folder = Path(sys.argv[1], name)
    folder.mkdir(parents=True, exist_ok=True)
    cut = len(tokens) * 9 // 10
    tokens[:cut].tofile(folder / "train.bin")
    tokens[cut:].tofile(folder / "val.bin")
    print(f"{name}: {cut:,} tokens to train on, {len(tokens) - cut:,} held out")
