from pathlib import Path

from mmcore.core.host_memory import available_host_bytes


def test_the_limit_of_a_container_counts(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  2000 kB\nMemAvailable:    1000 kB\n")
    assert available_host_bytes(tmp_path, meminfo) == 1_024_000
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("100000\n")
    assert available_host_bytes(tmp_path, meminfo) == 1_024_000
    (tmp_path / "memory.max").write_text("500000\n")
    assert available_host_bytes(tmp_path, meminfo) == 400_000
