"""How many trials a kind of device trains together."""

from mixopt.sweeps.group_sizes import GroupSizes


def test_each_kind_is_measured_once(tmp_path):
    sizes = GroupSizes(tmp_path)
    assert (sizes.measure("H100", lambda: 32), sizes.measure("cpu", lambda: 2)) == (32, 2)
    assert sizes.measure("H100", lambda: 5) == 32


def test_what_was_measured_is_kept(tmp_path):
    GroupSizes(tmp_path).measure("H100", lambda: 32)
    assert GroupSizes(tmp_path).measure("H100", lambda: 5) == 32


def test_one_kill_for_memory_may_be_chance_and_a_second_halves_the_kind(tmp_path):
    sizes = GroupSizes(tmp_path)
    sizes.measure("H100", lambda: 32)
    sizes.measure("cpu", lambda: 8)
    sizes.short_of_memory("H100", 32)
    assert sizes["H100"] == 32
    sizes.short_of_memory("H100", 32)
    assert (sizes["H100"], sizes["cpu"]) == (16, 8)
    assert GroupSizes(tmp_path)["H100"] == 16


def test_a_file_that_cannot_be_used_counts_as_none(tmp_path):
    (tmp_path / "group_sizes.json").write_text('{"H100": 0}')
    assert "H100" not in GroupSizes(tmp_path)
