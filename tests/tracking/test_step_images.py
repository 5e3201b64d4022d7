"""Pictures of a step under the names that MLflow's page looks for."""

import pytest
from PIL import Image

from mixopt.errors import RunError
from mixopt.tracking.step_images import SMALL, step_images


@pytest.fixture
def picture(tmp_path):
    file = tmp_path / "experts_load" / "00000040.png"
    file.parent.mkdir()
    Image.new("RGB", (800, 400), "white").save(file)
    return file


def test_a_picture_is_given_whole_and_small_under_a_name_that_stays(picture):
    for _ in range(2):
        with step_images(picture) as (large, small):
            assert large.stem == "experts_load+step+40+timestamp+0+mixopt"
            assert large.read_bytes() == picture.read_bytes()
            with Image.open(small) as seen:
                assert seen.size == (SMALL, SMALL // 2)
    assert not large.exists()


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"x" * 40])
def test_what_is_no_picture_is_one_line_with_its_file(picture, content):
    picture.write_bytes(content)
    with (
        pytest.raises(
            RunError, match=r"experts_load/00000040.png'?: is no picture \(.png\)$"
        ) as caught,
        step_images(picture),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_a_picture_that_is_cut_is_no_picture(picture):
    picture.write_bytes(picture.read_bytes()[:100])
    with pytest.raises(RunError, match="is no picture"), step_images(picture):
        pass


def test_a_picture_without_a_step_is_named(picture):
    other = picture.rename(picture.with_name("last.png"))
    with (
        pytest.raises(RunError, match="experts_load/last.png'?: is not named after a step"),
        step_images(other),
    ):
        pass
