"""Objects of stores: what is listed, fetched once, checked, and said of a store that refuses."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest
from odd_servers import serving

from mixopt.errors import CorpusError, RunError
from mixopt.system import (
    cache_folder,
    fetched,
    is_url,
    list_objects,
    local_copy,
    local_path,
    naming,
    object_exists,
    url_fault,
    write_object,
)

FETCH = """
import sys
from mixopt.system import fetched, list_objects
print(fetched(list_objects(sys.argv[1])[0]))
"""


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """The memory file system, empty, and a cache of one's own."""
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("MIXOPT_CACHE", str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")
    store.rm("/", recursive=True) if store.ls("/") else None
    return store


def urls(pattern: str) -> list[str]:
    return [found.url for found in list_objects(pattern)]


def test_objects_are_listed_by_name_folder_and_glob(s3):
    for key in ("a/2.jsonl", "a/1.jsonl", "a/b/3.txt", "a/.hidden/4.txt", "other/5.txt"):
        s3.put(key, b"text")
    s3.put("a/", b"")  # what consoles make for a folder
    assert urls("s3://texts/a/1.jsonl") == ["s3://texts/a/1.jsonl"]
    assert urls("s3://texts/a") == [f"s3://texts/a/{n}" for n in ("1.jsonl", "2.jsonl", "b/3.txt")]
    assert urls("s3://texts/a/*.jsonl") == ["s3://texts/a/1.jsonl", "s3://texts/a/2.jsonl"]
    assert urls("s3://texts/a/**/*.txt") == ["s3://texts/a/b/3.txt"]


def test_an_object_is_fetched_once_and_a_changed_one_again(s3):
    url = s3.put("web.jsonl", b"first")
    one = fetched(list_objects(url)[0])
    assert one.read_bytes() == b"first"
    assert one.suffix == ".jsonl"
    written = one.stat().st_mtime_ns
    assert fetched(list_objects(url)[0]) == one
    assert one.stat().st_mtime_ns == written
    s3.put("web.jsonl", b"other")
    assert fetched(list_objects(url)[0]).read_bytes() == b"other"


def test_an_object_that_changes_while_it_is_read_is_one_line(s3):
    url = s3.put("web.jsonl", b"first")
    (listed,) = list_objects(url)
    s3.put("web.jsonl", b"other")
    with pytest.raises(
        CorpusError, match=r"s3://texts/web\.jsonl: changed or broke off while it was being read"
    ):
        fetched(listed)
    assert not list(cache_folder().rglob("web.jsonl*"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://texts/none.jsonl", "no such object, folder or bucket"),
        ("s3://texts/none/*.jsonl", "the glob matches no object"),
        ("nosuch://texts/a", "unknown store; known: s3"),
        ("zip://a::s3://texts/b", "chains of URLs are not read"),
    ],
)
def test_what_is_not_there_is_one_line_with_the_url(s3, url, said):
    s3.put("web.jsonl", b"text")
    with pytest.raises(CorpusError) as caught:
        list_objects(url)
    assert str(caught.value) == f"{url}: {said}" or str(caught.value).startswith(f"{url}: {said}")


def test_credentials_that_fail_are_one_line_and_are_not_shown(s3):
    url = s3.put("web.jsonl", b"text")
    with s3.demanding(), pytest.raises(CorpusError, match="access is denied") as caught:
        list_objects(url)
    assert "AWS_ACCESS_KEY_ID" in str(caught.value)
    assert "testing" not in str(caught.value)


def test_a_secret_in_a_url_is_refused_and_not_shown():
    for url in ("s3://key:hidden-one@texts/a", "https://host/a?X-Amz-Signature=hidden-one"):
        with pytest.raises(CorpusError, match="has a secret") as caught:
            list_objects(url)
        assert "hidden-one" not in str(caught.value)
    assert url_fault("s3://texts/a") is None


def test_a_store_that_cannot_be_reached_is_one_line():
    with pytest.raises(CorpusError, match=r"^http://127\.0\.0\.1:1/a\.txt: the store cannot be"):
        list_objects("http://127.0.0.1:1/a.txt")


def broken_off(request):
    """Say how long an object is, unless its name has no size, and send half of it."""
    request.send_response(200)
    if "unsized" not in request.path:
        request.send_header("Content-Length", "1000")
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(b"x" * 500)


def test_a_truncated_download_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXOPT_CACHE", str(tmp_path / "cache"))
    with serving(broken_off) as place:
        address = f"http://{place}"
        (listed,) = list_objects(f"{address}/long.txt")
        assert listed.bytes == 1000
        with pytest.raises(CorpusError, match=rf"^{address}/long\.txt: ") as caught:
            fetched(listed)
        assert "\n" not in str(caught.value)
        with pytest.raises(CorpusError, match="does not report its size"):
            list_objects(f"{address}/unsized.txt")
    assert not [
        path for path in cache_folder().rglob("*") if path.is_file() and path.stat().st_size
    ]


def test_a_full_disk_is_the_error_of_the_disk(memory, monkeypatch):
    memory.pipe("/m/a.txt", b"hello")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(memory), "get_file", full)
    with pytest.raises(RunError, match="No space left"):
        fetched(list_objects("memory://m/a.txt")[0])


def test_two_processes_at_once_fetch_once(s3, tmp_path):
    url = s3.put("large.bin", os.urandom(20_000_000))
    command = [sys.executable, "-c", FETCH, url]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {process.communicate(timeout=120)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    (path,) = paths
    log = (s3.log.read_text()).count("GET /texts/large.bin ")
    assert log == 1
    assert os.path.getsize(path) == 20_000_000


def test_paths_and_urls_are_told_apart(memory, tmp_path):
    assert [is_url(text) for text in ("s3://b/k", "file:///a", "/a/b", None)] == [1, 0, 0, 0]
    assert local_path("file:///a/b") == local_path("/a/b")
    memory.pipe("/m/a.txt", b"1")
    memory.pipe("/m/b.txt", b"2")
    assert local_copy("memory://m/a.txt").read_bytes() == b"1"
    assert local_copy(tmp_path) == tmp_path
    with pytest.raises(CorpusError, match="is 2 objects, but only one is read here"):
        local_copy("memory://m")


def test_an_error_about_a_copy_names_its_url(tmp_path):
    path = tmp_path / "a.jsonl"
    with pytest.raises(CorpusError) as caught, naming(path, "s3://b/a.jsonl"):
        raise CorpusError(f"{path}:3: broken")
    assert str(caught.value) == "s3://b/a.jsonl:3: broken"


def test_an_object_is_written_and_no_bucket_is_made_for_it(s3, tmp_path):
    path = tmp_path / "index.json"
    path.write_text("{}")
    s3.put("other", b"")
    write_object(path, "s3://texts/corpus/index.json")
    assert s3.get("corpus/index.json") == b"{}"
    assert object_exists("s3://texts/corpus")
    assert not object_exists("s3://texts/nothing")
    with pytest.raises(CorpusError, match="no such object, folder or bucket"):
        write_object(path, "s3://not-there/index.json")
