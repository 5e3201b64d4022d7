"""Token files that the libraries which own their formats wrote, read as domains.

`make parsers` installs these below .tools/parsers, and each writes in a process of its own:

    megatron     megatron-core 0.16.1: IndexedDatasetBuilder, of each type that it has a code for
    datatrove    datatrove 0.10.1: TokenizedFile
    webdataset   webdataset 1.0.2: TarWriter
    mds          mosaicml-streaming 0.13.0: MDSWriter; read by it too
    litdata      litdata 0.2.76: Cache; read by it too
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from places import PROJECT

from mixopt.corpus.foreign import Stated, pieces, read_foreign, token_files

TOOLS = PROJECT / ".tools" / "parsers"
DOCUMENTS = [[5, 6, 7, 0], [8, 0], [9, 9, 9, 9, 0], [100, 200, 250, 0]]

WRITES = {
    "megatron": """
        import numpy as np
        import torch
        from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

        for dtype in ("uint8", "uint16", "int32", "int64"):
            builder = IndexedDatasetBuilder(f"{dtype}.bin", dtype=np.dtype(dtype).type)
            for document in documents[:2]:
                builder.add_document(document, [len(document)])
            builder.add_document(documents[2], [2, 3])
            builder.add_item(torch.tensor(documents[3][:2]))
            builder.add_item(torch.tensor(documents[3][2:]))
            builder.end_document()
            builder.finalize(f"{dtype}.idx")
    """,
    "datatrove": """
        from datatrove.io import get_datafolder
        from datatrove.pipeline.tokens.tokenizer import TokenizedFile

        for size in (2, 4):
            file = TokenizedFile(
                get_datafolder("."), f"of_{size}.ds", tokenizer_name_or_path="gpt2",
                save_final_metadata=True, token_size=size,
            )
            for document in documents:
                file.write(document, None)
            file.close()
    """,
    "webdataset": """
        import numpy as np
        import webdataset

        for name in ("a.tar", "b.tar.gz"):
            with webdataset.TarWriter(name) as sink:
                for k, document in enumerate(documents):
                    sink.write({"__key__": f"{k:06d}", "tokens.npy": np.array(document),
                                "meta.json": {"k": k}})
        with webdataset.TarWriter("c.tar") as sink:
            for k, document in enumerate(documents):
                sink.write({"__key__": f"{k:06d}", "json": document})
        with webdataset.TarWriter("pickles.tar") as sink:
            sink.write({"__key__": "0", "tokens.pyd": documents[0]})
    """,
    "mds": """
        import numpy as np
        from streaming import MDSWriter
        from mixopt.corpus.foreign import Stated, pieces, read_foreign

        columns = {"tokens": "ndarray:uint16", "raw": "bytes"}
        with MDSWriter(out="mds", columns=columns) as writer:
            for document in documents:
                tokens = np.array(document, np.uint16)
                writer.write({"tokens": tokens, "raw": tokens.astype("<u4").tobytes()})
        found = {
            "tokens": read_foreign(Path("mds"), "mds", Stated()),
            "raw": read_foreign(Path("mds"), "mds", Stated("raw", "uint32")),
        }
        print(json.dumps({k: [d.tolist() for d in pieces(one, None)] for k, one in found.items()}))
    """,
    "litdata": """
        import numpy as np
        from litdata.streaming.cache import Cache
        from mixopt.corpus.foreign import Stated, pieces, read_foreign

        cache = Cache("lit", chunk_bytes=1 << 20)
        for k, document in enumerate(documents):
            cache[k] = {"tokens": np.array(document, np.int64)}
        cache.done()
        cache.merge()
        found = read_foreign(Path("lit"), "litdata", Stated())
        print(json.dumps({"tokens": [d.tolist() for d in pieces(found, None)]}))
    """,
}
HEAD = """
import json, sys, warnings
from pathlib import Path

warnings.simplefilter("ignore")
documents = json.loads(sys.argv[1])
"""


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Returns a function that lets a tool write into a folder, and gives what it prints."""

    def write(tool):
        folder = TOOLS / tool
        if not (folder / ".done").exists():
            pytest.skip(f"{tool}'s own library is not installed: make parsers")
        path = os.pathsep.join([str(folder), str(PROJECT)])
        ended = subprocess.run(
            [sys.executable, "-c", HEAD + textwrap.dedent(WRITES[tool]), json.dumps(DOCUMENTS)],
            cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
            env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr[-2000:]
        return ended.stdout

    monkeypatch.chdir(tmp_path)
    return write


def read(name, format, **stated):
    (path,) = token_files([name], format)
    return [d.tolist() for d in pieces(read_foreign(path, format, Stated(**stated)), None)]


@pytest.mark.nightly
def test_what_megatrons_builder_writes_is_read(written):
    written("megatron")
    for dtype in ("uint8", "uint16", "int32", "int64"):
        assert read(dtype, "megatron", dtype=dtype) == DOCUMENTS
    assert [path.name for path in token_files(["*.idx"])] == ["int32", "int64", "uint16", "uint8"]


def test_what_datatroves_file_writes_is_read(written):
    written("datatrove")
    for size in (2, 4):
        assert read(f"of_{size}.ds", "datatrove") == DOCUMENTS
    found = read_foreign(Path("of_2.ds"), "datatrove", Stated())
    assert (found.documents, found.dtype.name) == (len(DOCUMENTS), "uint16")


def test_what_webdatasets_writer_writes_is_read(written):
    written("webdataset")
    assert read("a.tar", "webdataset") == DOCUMENTS
    assert read("b.tar.gz", "webdataset", field="tokens.npy") == DOCUMENTS
    assert read("c.tar", "webdataset") == DOCUMENTS
    with pytest.raises(Exception, match=r"0.tokens.pyd: is a pickle, which is not read"):
        read("pickles.tar", "webdataset")


@pytest.mark.nightly
def test_what_mosaics_writer_writes_is_read(written):
    found = json.loads(written("mds").splitlines()[-1])
    assert found == {"tokens": DOCUMENTS, "raw": DOCUMENTS}


def test_what_litdatas_cache_writes_is_read(written):
    found = json.loads(written("litdata").splitlines()[-1])
    assert found == {"tokens": DOCUMENTS}
