"""Plug-ins are found by name, lazily, and every failure says what to do."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from mixopt.errors import ConfigError, PluginError
from mixopt.system import build_plugin, check_trusted, load_plugin, plugins


def test_an_unknown_name_is_answered_with_the_nearest_and_a_class_without_methods_refused():
    with pytest.raises(PluginError, match="^unknown proxy 'zzz'; known: .*[(]reinstall its pack"):
        load_plugin("proxy", "zzz")
    with pytest.raises(PluginError, match="unknown proxy 'decodr'; did you mean 'decoder'"):
        load_plugin("proxy", "decodr")
    with pytest.raises(ConfigError, match="unknown option 'oder'; did you mean 'order'"):
        build_plugin("proxy", "ngram", {"oder": 3})
    with pytest.raises(PluginError, match=r"subprocess:Popen'?: has no '.*'; is it a model"):
        build_plugin("model", "subprocess:Popen", {})


def test_an_object_in_place_of_its_class_is_refused(monkeypatch):
    made = build_plugin("proxy", "ngram", {})
    monkeypatch.setattr("collections.made", made, raising=False)
    with pytest.raises(PluginError, match="'collections:made': is not a class; name the class"):
        build_plugin("proxy", "collections:made", {})


def test_a_path_works_where_a_name_does():
    assert load_plugin("regressor", "sklearn.linear_model:Ridge").__name__ == "Ridge"
    with pytest.raises(PluginError, match="collections has no 'Nothing'"):
        load_plugin("regressor", "collections:Nothing")
    with pytest.raises(PluginError, match="^regressor 'collections:': give package.module:Name$"):
        load_plugin("regressor", "collections:")
    with pytest.raises(PluginError, match="needs absent_package: pip install the package that has"):
        load_plugin("proxy", "absent_package:Proxy")


def test_a_path_that_a_file_records_needs_trust():
    with pytest.raises(PluginError) as raised:
        check_trusted("regressor", "evil.module:R", "fit.json", trust=False)
    assert "fit.json" in str(raised.value)
    assert "import 'evil.module'" in str(raised.value)
    assert "--trust" in str(raised.value)
    check_trusted("regressor", "evil.module:R", "fit.json", trust=True)
    check_trusted("regressor", "evil.module:R", "fit.json", trust={"evil.module:R"})
    check_trusted("regressor", "linear", "fit.json", trust=False)


def test_two_plugins_of_one_name_is_an_error_that_lists_both(monkeypatch):
    both = tuple(EntryPoint("twin", value, "mixopt.proxies") for value in ("a:A", "b:B"))
    monkeypatch.setattr(plugins, "_entries", lambda kind: both)
    with pytest.raises(PluginError, match="'twin' is given by a:A and b:B"):
        load_plugin("proxy", "twin")


def test_listing_names_imports_no_plugin():
    code = (
        "import sys; from mixopt.system import plugin_names; names = plugin_names('proxy');"
        "assert {'decoder', 'ngram'} <= set(names), names;"
        "assert not [m for m in sys.modules if m.startswith(('mixopt_', 'torch'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
