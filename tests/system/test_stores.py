"""Objects of stores: what is listed, fetched once, checked; what names of servers show nowhere."""

import copy
import errno
import json
import os
import pickle
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given, strategies as st
from odd_servers import serving
from refusals import refuses

from mixopt.errors import ConfigError, CorpusError, PluginError, RunError
from mixopt.system import (
    ServerUri,
    cache_folder,
    fetched,
    is_url,
    list_objects,
    local_copy,
    local_path,
    naming,
    object_exists,
    under_folder,
    without_secrets,
    write_object,
)

FETCH = """
import sys
from mixopt.system import fetched, list_objects
print(fetched(list_objects(sys.argv[1])[0]))
"""


def urls(pattern: str) -> list[str]:
    return [found.url for found in list_objects(pattern)]


def test_objects_are_listed_by_name_folder_and_glob(store):
    for key in ("a/2.jsonl", "a/1.jsonl", "a/b/3.txt", "a/.hidden/4.txt", "other/5.txt"):
        root = store.put(key, b"text").removesuffix(key)
    if "s3" in root:
        store.put("a/", b"")  # what consoles make for a folder
    lines = [f"{root}a/1.jsonl", f"{root}a/2.jsonl"]
    assert urls(f"{root}a/1.jsonl") == lines[:1]
    assert urls(f"{root}a") == urls(f"{root}a/") == [*lines, f"{root}a/b/3.txt"]
    assert urls(f"{root}a/*.jsonl") == lines
    assert urls(f"{root}a/**/*.txt") == [f"{root}a/b/3.txt"]


def test_an_object_is_fetched_once_and_a_changed_one_again(store):
    url = store.put("web.jsonl", b"first")
    (listed,) = list_objects(url)
    path = fetched(listed)
    assert (path.name, path.read_bytes()) == ("web.jsonl", b"first")
    written = path.stat().st_mtime_ns
    assert fetched(list_objects(url)[0]) == path
    assert path.stat().st_mtime_ns == written
    store.put("web.jsonl", b"changed")
    assert fetched(list_objects(url)[0]).read_bytes() == b"changed"
    path.unlink()
    with pytest.raises(CorpusError) as caught:
        fetched(listed)
    assert str(caught.value) == (
        f"{url}: changed or broke off while it was being read; run again when nothing writes to it"
    )
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("none.jsonl", "no such object, folder or bucket"),
        ("none/*.jsonl", "the glob matches no object"),
    ],
)
def test_a_missing_object_is_one_line_with_its_url(store, key, said):
    root = store.put("web.jsonl", b"text").removesuffix("web.jsonl")
    with pytest.raises(CorpusError) as caught:
        list_objects(root + key)
    assert str(caught.value) == f"{root}{key}: {said}"


def test_an_object_is_written_without_creating_a_bucket(store, s3, tmp_path):
    (tmp_path / "index.json").write_text("{}")
    root = store.put("other", b"").removesuffix("other")
    write_object(tmp_path / "index.json", f"{root}corpus/index.json")
    assert store.get("corpus/index.json") == b"{}"
    assert object_exists(f"{root}corpus")
    assert not object_exists(f"{root}nothing")
    with pytest.raises(CorpusError, match="no such object, folder or bucket"):
        write_object(tmp_path / "index.json", "s3://not-there/index.json")


LOG_IN = "set the credentials of the store in the environment (AWS_ACCESS_KEY_ID and"


def fault(kind, *given, base=Exception, **fields):
    error = type(kind, (base,), {})(*given)
    vars(error).update(fields)
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError("not yours"), f"access is denied (not yours); {LOG_IN}"),
        (fault("ClientError", "x", status=403), f"access is denied (x); {LOG_IN}"),
        (
            fault("HttpError", "x", response=SimpleNamespace(status_code=401)),
            f"access is denied (x); {LOG_IN}",
        ),
        (fault("NoCredentialsError"), f"no credentials are found; {LOG_IN}"),
        (fault("ConnectTimeout", "10 s"), "the store cannot be reached (10 s)"),
        (fault("Absent", "x", base=FileNotFoundError, status=404), "no such object, folder or"),
        (fault("Absent", "x", base=FileNotFoundError, status=500), "cannot be read: x"),
        (fault("Odd", "a\nhttp://u:pw@h"), "cannot be read: a http://***@h"),
        (KeyError(), "cannot be read: KeyError"),
    ],
    ids=lambda item: type(item).__name__,
)
def test_what_a_store_raises_is_one_line_that_says_what_to_do(memory, monkeypatch, error, said):
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(type(memory), "info", refuse)
    with pytest.raises(CorpusError) as caught:
        list_objects("memory://m/a.txt")
    assert str(caught.value).startswith(f"memory://m/a.txt: {said}")
    assert "\n" not in str(caught.value)


def test_credentials_that_fail_are_one_line_and_are_not_shown(s3):
    url = s3.put("web.jsonl", b"text")
    with s3.demanding(), pytest.raises(CorpusError, match="access is denied") as caught:
        list_objects(url)
    assert "AWS_ACCESS_KEY_ID" in str(caught.value)
    assert "testing" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nosuch://texts/a", "unknown store; known: s3, gs, hf, memory, http"),
        ("http://127.0.0.1:1/a.txt", "the store cannot be reached ("),
        ("s3://key:hidden-one@texts/a", "has a secret, which would be stored with the URL; leave"),
        ("https://host/a?X-Amz-Signature=hidden-one", "has a secret, which would be stored with"),
        ("s3:///", "names no bucket or host"),
        ("a::b://c", "chains of URLs are not read; give one, such as s3://bucket/folder"),
    ],
)
def test_a_url_that_cannot_be_asked_for_is_one_line_without_its_secret(url, said):
    with pytest.raises(CorpusError) as caught:
        list_objects(url)
    assert f": {said}" in str(caught.value)
    assert "hidden-one" not in str(caught.value)
    assert "\n" not in str(caught.value)


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
        refuses(CorpusError, rf"^{address}/long\.txt: ", fetched, listed)
        refuses(CorpusError, "does not report its size", list_objects, f"{address}/unsized.txt")
    assert not [
        path for path in cache_folder().rglob("*") if path.is_file() and path.stat().st_size
    ]


def test_a_full_disk_is_the_error_of_the_disk(memory, monkeypatch):
    memory.pipe("/m/a.txt", b"hello")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(memory), "get_file", full)
    refuses(RunError, "No space left", fetched, list_objects("memory://m/a.txt")[0])


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


def test_what_was_fetched_is_kept_in_the_cache_of_the_user(monkeypatch, tmp_path):
    given = (("MIXOPT_CACHE", "$XDG_CACHE_HOME/own"), ("XDG_CACHE_HOME", "/x"), ("HOME", "/h"))
    for name, value in given:
        monkeypatch.setenv(name, value)
    found = []
    for name, _ in given:
        found.append(str(cache_folder()))
        monkeypatch.delenv(name)
    assert found == ["/x/own", "/x/mixopt", "/h/.cache/mixopt"]


def test_a_store_whose_library_is_absent_says_what_to_install(monkeypatch):
    def absent(url):
        try:
            raise ModuleNotFoundError("No module", name="gcsfs")
        except ImportError as error:  # as fsspec does
            raise ImportError("Please install gcsfs") from error

    monkeypatch.setattr("fsspec.core.url_to_fs", absent)
    with pytest.raises(PluginError) as error:
        list_objects("gs://b/k")
    assert str(error.value) == "gs://b/k: needs gcsfs: pip install 'mixopt[remote]'"


def test_paths_and_urls_are_told_apart_and_names_are_put_below_either(memory, tmp_path):
    assert [is_url(text) for text in ("s3://b/k", "file:///a", "/a/b", None)] == [1, 0, 0, 0]
    assert local_path("file:///a/b") == local_path("/a/b")
    memory.pipe("/m/a.txt", b"1")
    memory.pipe("/m/b.txt", b"2")
    assert local_copy("memory://m/a.txt").read_bytes() == b"1"
    assert local_copy(tmp_path) == tmp_path
    refuses(ConfigError, "is 2 objects, but only one", local_copy, "memory://m")
    cases = {("/r", "a/b"): "/r/a/b", ("s3://b/k/", "a"): "s3://b/k/a", ("/r", "/a"): "/a"}
    cases |= {("/r", "s3://b/k"): "s3://b/k", ("file:///r", "a"): "file:/r/a"}
    assert {given: under_folder(*given) for given in cases} == cases


def test_an_error_about_a_copy_names_its_url(tmp_path):
    path = tmp_path / "a.jsonl"
    with pytest.raises(CorpusError) as caught, naming(path, "s3://b/a.jsonl"):
        raise CorpusError(f"{path}:3: broken")
    assert str(caught.value) == "s3://b/a.jsonl:3: broken"


USER, WORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"


def test_a_secret_is_shown_as_stars_also_inside_a_message():
    assert ServerUri("http://u:p@ss@h") == "http://***@h"
    database = "postgresql+psycopg2://***@h:5432/db"
    assert ServerUri("postgresql+psycopg2://u:1/2@h:5432/db") == ServerUri(database) == database
    query = "mysql://h/db?user=u&password=***&ssl=1"
    assert ServerUri("mysql://h/db?user=u&password=pw&ssl=1") == ServerUri(query) == query
    plain = "sqlite:////runs/a@b/mlflow.db"
    assert ServerUri(plain) == ServerUri(plain).given == plain
    said = "GET http://u:pw@h/api failed; see postgresql://u:pw@h/db, pass: w0rd-0f-it"
    hidden = without_secrets(said, ["w0rd-0f-it"])
    assert hidden == "GET http://***@h/api failed; see postgresql://***@h/db, pass: ***"


words = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=6, max_size=20)
schemes = st.sampled_from(["http", "https", "postgresql", "mysql+pymysql"])


@given(schemes, words, words, st.sampled_from([":", "@", "%40", "!", "$", ""]))
def test_no_password_is_in_what_is_shown(scheme, user, word, inside):
    password = f"{word[:3]}{inside}{word[3:]}-secret"
    whole = f"{scheme}://{user}:{password}@host/db"
    uri = ServerUri(whole)
    assert (uri.given, ServerUri(str(uri))) == (whole, uri)
    assert copy.deepcopy(uri) == pickle.loads(pickle.dumps(uri)) == uri
    assert pickle.loads(pickle.dumps(uri)).given == uri
    for text in (str(uri), repr(uri), f"{uri}", json.dumps(uri), uri.address):
        assert password not in text
        assert "-secret" not in text


def test_http_gets_user_and_password_by_the_environment_and_a_database_in_its_name():
    login = ServerUri("http://me:p%40ss@h:1/x").login()
    assert (login.uri, login.environment) == ("http://h:1/x", {USER: "me", WORD: "p@ss"})
    assert {"p@ss", "p%40ss"} <= set(login.secrets)
    given_uri = "postgresql://me:pw@h/db"
    assert ServerUri(given_uri).login()[:2] == (given_uri, {})


def test_what_is_hidden_is_looked_for_in_the_environment(monkeypatch):
    for name in (USER, WORD, "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    hidden = ServerUri("postgresql://***@h/db")
    assert hidden.login().uri == "postgresql://h/db"
    monkeypatch.setenv(USER, "me")
    monkeypatch.setenv(WORD, "p@ss")
    assert hidden.login().uri == "postgresql://me:p%40ss@h/db"
    assert ServerUri("http://***@h").login()[:2] == ("http://h", {})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://other:word@h/db")
    assert hidden.login().uri == "postgresql://other:word@h/db"
