"""Names of servers: what lets one in is shown nowhere, and reaches who connects."""

import copy
import json
import pickle

from hypothesis import given, strategies as st

from mixopt.system import ServerUri, without_secrets

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
