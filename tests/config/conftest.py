"""A configuration of text, or of plain sections."""

import pytest
import yaml

from mixopt.config import load_config


@pytest.fixture
def load(tmp_path):
    def loaded(content, *overrides):
        path = tmp_path / "experiment.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return load_config(path, overrides)

    return loaded
