"""A password in the name of the tracking server is written and said nowhere."""

import pytest
import yaml

from mixopt.config import dump_config, load_config
from mixopt.errors import ConfigError
from mixopt.run_directory import open_run

URI = "http://me:s3cret-w0rd@127.0.0.1:5000"


def test_a_password_of_tracking_is_in_nothing_that_is_written(config_path):
    config = load_config(config_path, [f"tracking.uri={URI}"])
    assert config.tracking.uri.given == URI
    content = dump_config(config)
    assert content["tracking"]["uri"] == "http://***@127.0.0.1:5000"
    for text in (yaml.safe_dump(content), repr(config), config.model_dump_json()):
        assert "s3cret" not in text


@pytest.mark.parametrize(
    "override", [f"tracking.url={URI}", f"tracking.uri.x={URI}", f"seed={URI}"]
)
def test_a_password_in_the_wrong_place_is_not_repeated(config_path, override):
    with pytest.raises(ConfigError) as found:
        load_config(config_path, [override])
    assert "s3cret" not in str(found.value)
    assert "\n" not in str(found.value)


def test_a_run_goes_on_though_its_configuration_hides_the_password(config_path, tmp_path):
    config = load_config(config_path, [f"tracking.uri={URI}"])
    open_run(config, tmp_path / "run").log.begin("prepare")
    assert "s3cret" not in (tmp_path / "run/config.yaml").read_text()
    again = open_run(load_config(tmp_path / "run/config.yaml"), tmp_path / "run")
    for one in (again, open_run(config, tmp_path / "run")):
        assert one.log.is_begun("prepare")
