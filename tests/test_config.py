"""The settings table: where values come from, what is refused and how it is said."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest

from atoll import config
from atoll.errors import BadSetting, MachineError


def home_with(folder: Path, text: str) -> Path:
    (folder / "config.toml").write_text(text, encoding="utf-8")
    return folder


def test_defaults_without_a_file(tmp_path: Path) -> None:
    settings = config.load(tmp_path, {})
    assert settings == config.Settings()
    assert settings.roles == ("worker", "validator", "holder", "server")
    assert (settings.cpu_threads, settings.memory_mb, settings.poll_seconds) == (1, 1024, 1.0)


def test_file_then_environment_then_command_line(tmp_path: Path) -> None:
    home = home_with(
        tmp_path, 'cpu_threads = 2\nmemory_mb = 300\ndisk_mb = 400\nroles = ["holder"]\npoll_seconds = 2\n'
    )
    environment = {"ATOLL_MEMORY_MB": "301", "ATOLL_DISK_MB": "401", "ATOLL_ROLES": "worker, server", "PATH": "/bin"}
    settings = config.load(home, environment, {"disk_mb": 402, "chain_id": "5", "name": None, "poll_seconds": 3})
    assert (settings.cpu_threads, settings.memory_mb, settings.disk_mb, settings.chain_id) == (2, 301, 402, 5)
    assert settings.roles == ("worker", "server")
    assert settings.poll_seconds == 3.0
    assert isinstance(settings.poll_seconds, float)
    assert settings.name == ""


def test_names_of_the_environment_that_are_no_settings(tmp_path: Path) -> None:
    assert config.load(tmp_path, {"ATOLL_HOME": "x", "ATOLL_PASSPHRASE": "y"}) == config.Settings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cpu_thread = 2", "Did you mean 'cpu_threads'"),
        ("zzzzqqqq = 2", "The settings are name, roles"),
        ("cpu_threads = 0", "from 1 to 1024"),
        ("cpu_threads = 1.5", "whole number"),
        ("cpu_threads = true", "whole number"),
        ('cpu_threads = "2"', "whole number"),
        ("poll_seconds = 0", "from 0.05 to 3600"),
        ("poll_seconds = nan", "from 0.05 to 3600"),
        ('roles = "worker"', "expected a list"),
        ("roles = []", "one or more of worker"),
        ('roles = ["worker", "worker"]', "one or more of worker"),
        ('roles = ["miner"]', "one or more of worker"),
        ("roles = [1]", "expected a list"),
        ('rpc = "ftp://x"', "http:// or https://"),
        ('registry = "0x12"', "40 hexadecimal digits"),
        ('registry = "00000000000000000000000000000000000000aa"', "40 hexadecimal digits"),
        ('listen = "localhost"', "ip:port"),
        ('listen = "127.0.0.1:70000"', "ip:port"),
        ('log_level = "loud"', "one of debug, info, warning, error"),
        ('name = "a\\nb"', "printable"),
        ("cpu_threads = ", "not a TOML file"),
        ("cpu_threads = 1\ncpu_threads = 2", "not a TOML file"),
    ],
)
def test_a_wrong_file_is_refused_with_the_expectation(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadSetting) as refused:
        config.load(home_with(tmp_path, text), {})
    assert said in str(refused.value)
    assert str(tmp_path / "config.toml") in str(refused.value)
    assert refused.value.exit_code == 2


def test_wrong_environment_and_command_line(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match=r"ATOLL_CPU_THREADS.*whole number \(threads\), from 1 to 1024"):
        config.load(tmp_path, {"ATOLL_CPU_THREADS": "many"})
    with pytest.raises(BadSetting, match=r"ATOLL_CPUS"):
        config.load(tmp_path, {"ATOLL_CPUS": "1"})
    with pytest.raises(BadSetting, match="the command line"):
        config.load(tmp_path, {}, {"memory_mb": -1})
    with pytest.raises(BadSetting, match="Unknown setting 'memory'"):
        config.load(tmp_path, {}, {"memory": 1})


def test_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(BadSetting, match="not a TOML file"):
        config.load(tmp_path, {})


def test_the_default_file_changes_nothing_and_each_of_its_lines_can_be_used(tmp_path: Path) -> None:
    text = config.render()
    assert config.load(home_with(tmp_path, text), {}) == config.Settings()
    opened = "\n".join(line.removeprefix("# ") if " = " in line else line for line in text.splitlines())
    assert tomllib.loads(opened).keys() == {field.name for field in dataclasses.fields(config.Settings)}
    assert config.load(home_with(tmp_path, opened), {}) == config.Settings()


def test_given_values_are_written_and_read_back_and_never_overwritten(tmp_path: Path) -> None:
    values = {"name": 'north "1" \\ é', "roles": ("worker",), "listen": "127.0.0.1:0", "poll_seconds": 0.25}
    assert config.write(tmp_path / "new" / "home", values)
    settings = config.load(tmp_path / "new" / "home", {})
    assert (settings.name, settings.roles) == (values["name"], ("worker",))
    assert (settings.listen, settings.poll_seconds) == ("127.0.0.1:0", 0.25)
    assert not config.write(tmp_path / "new" / "home", {"name": "other"})
    assert config.load(tmp_path / "new" / "home", {}) == settings
    with pytest.raises(BadSetting):
        config.write(tmp_path / "bad", {"cpu_threads": 0})
    with pytest.raises(BadSetting, match="Unknown"):
        config.write(tmp_path / "bad", {"cpus": 1})
    assert not (tmp_path / "bad").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises((BadSetting, MachineError)):
        config.write(tmp_path / "file")


def test_the_table_describes_every_setting() -> None:
    assert [row.name for row in config.TABLE] == [field.name for field in dataclasses.fields(config.Settings)]
    assert [row[0] for row in config.rows()] == [row.name for row in config.TABLE]
    for row in config.TABLE:
        assert row.sentence.endswith(".")
        assert row.expectation
        assert row.holds(row.default), row.name
    for name, default, unit, sentence in config.rows():
        assert default in config.render()
        assert sentence.endswith(".")
        if name.endswith(("_mb", "_seconds")):
            assert unit
