"""Settings: flags go before the environment, that before the file, that before the defaults, and nothing is ignored."""

import json
import os
import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import get_args

import pytest

from labelmint_service.cli import main
from labelmint_service.errors import SettingsError
from labelmint_service.settings import EMBEDDED_BUNDLE, ENV_PREFIX, ServiceSettings, load_settings

README = Path(__file__).parents[2] / "service/README.md"
LIMITS = ("ge", "gt", "le")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "serve.toml"
    path.write_text('max_streams = 3\nlog_format = "json"\n', encoding="utf-8")
    return path


def failure_of(*argv: str) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load_settings(argv)
    return caught.value


def test_nothing_given_gives_the_defaults() -> None:
    assert load_settings([]) == ServiceSettings()
    assert load_settings([]).bundle == (EMBEDDED_BUNDLE,)


def test_file_goes_before_the_default(config: Path) -> None:
    settings = load_settings(["--config", str(config)])

    assert (settings.max_streams, settings.log_format) == (3, "json")


def test_environment_goes_before_the_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{ENV_PREFIX}MAX_STREAMS", "4")
    settings = load_settings(["--config", str(config)])

    assert (settings.max_streams, settings.log_format) == (4, "json")


def test_flag_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{ENV_PREFIX}MAX_STREAMS", "4")

    assert load_settings(["--max-streams", "5"]).max_streams == 5


def test_flag_goes_before_the_file(config: Path) -> None:
    settings = load_settings(["--config", str(config), "--max-streams", "5"])

    assert (settings.max_streams, settings.log_format) == (5, "json")


def test_switch_turns_off_what_the_environment_turns_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{ENV_PREFIX}METRICS", "true")

    assert load_settings(["--no-metrics"]).metrics is False


def test_variable_names_the_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{ENV_PREFIX}CONFIG", str(config))

    assert load_settings([]).max_streams == 3


def test_flag_goes_before_the_variable_that_names_the_file(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{ENV_PREFIX}CONFIG", str(tmp_path / "none.toml"))

    assert load_settings(["--config", str(config)]).max_streams == 3


def test_json_is_read_where_the_suffix_says_so(tmp_path: Path) -> None:
    path = tmp_path / "serve.json"
    path.write_text(json.dumps({"bundle": ["a", "b"], "grace_s": 1.5}), encoding="utf-8")
    settings = load_settings(["--config", str(path)])

    assert (settings.bundle, settings.grace_s) == ((Path("a"), Path("b")), 1.5)


def test_bundle_flag_repeats() -> None:
    assert load_settings(["--bundle", "a", "--bundle", "b"]).bundle == (Path("a"), Path("b"))


def test_bundle_variable_is_separated_like_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{ENV_PREFIX}BUNDLE", os.pathsep.join(["a", "b"]))

    assert load_settings([]).bundle == (Path("a"), Path("b"))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("port", "65536", "less than or equal to 65535"),
        ("port", "-1", "greater than or equal to 0"),
        ("port", "http", "valid integer"),
        ("max_streams", "0", "greater than or equal to 1"),
        ("stream_queue_batches", "1", "greater than or equal to 2"),
        ("encode_threads", "257", "less than or equal to 256"),
        ("progress_interval_s", "0", "greater than 0"),
        ("progress_interval_s", "nan", "less than or equal to 3600"),
        ("first_message_timeout_s", "0", "greater than 0"),
        ("max_message_bytes", "1048575", "greater than or equal to 1048576"),
        ("max_request_bytes", "2147483648", "less than or equal to 2147483647"),
        ("grace_s", "3601", "less than or equal to 3600"),
        ("keepalive_time_s", "0.5", "greater than or equal to 1"),
        ("host", "", "at least 1 character"),
        ("provider", "npu", "'cpu' or 'cuda'"),
        ("engine", "magic", "'onnxruntime'"),
        ("log_level", "loud", "'debug'"),
    ],
)
def test_value_out_of_range_is_named_with_what_is_expected(name: str, value: str, expected: str) -> None:
    error = failure_of(f"--{name.replace('_', '-')}={value}")

    assert error.field == name
    assert f"{name} is {value!r} (from flag)" in str(error)
    assert expected in str(error)


def test_bad_value_of_the_environment_says_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{ENV_PREFIX}PORT", "70000")

    assert "port is '70000' (from environment)" in str(failure_of())


def test_bad_value_of_the_file_says_where_it_came_from(tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    path.write_text("metrics = 3\n", encoding="utf-8")

    assert f"metrics is 3 (from file {path})" in str(failure_of("--config", str(path)))


def test_every_bad_value_is_named_at_once() -> None:
    text = str(failure_of("--port", "-1", "--grace-s", "-2"))

    assert "port is '-1'" in text
    assert "grace_s is '-2'" in text


def test_unknown_key_of_the_file_is_named_with_the_nearest_setting(tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    path.write_text("max_stream = 3\n", encoding="utf-8")
    error = failure_of("--config", str(path))

    assert error.field == "max_stream"
    assert f"max_stream (from file {path}) is no setting, perhaps max_streams" in str(error)


def test_unknown_variable_is_named_with_the_nearest_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{ENV_PREFIX}PROT", "1")
    error = failure_of()

    assert error.field == f"{ENV_PREFIX}PROT"
    assert f"perhaps {ENV_PREFIX}PORT" in str(error)


@pytest.mark.parametrize(
    ("name", "content"),
    [("serve.toml", "port = "), ("serve.toml", "\x00"), ("serve.json", "{"), ("serve.json", "[1]")],
)
def test_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    error = failure_of("--config", str(path))

    assert error.field == "config"
    assert str(path) in str(error)


def test_missing_file_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "none.toml") in str(failure_of("--config", str(tmp_path / "none.toml")))


@pytest.mark.parametrize("flag", ["--prot", "--max-stream"])
def test_unknown_or_shortened_flag_ends_with_status_2(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([flag, "1"])

    assert stop.value.code == 2
    assert flag in capsys.readouterr().err


def test_bad_value_ends_the_command_with_status_2_and_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", "70000"]) == 2
    assert capsys.readouterr().err.startswith("labelmint-serve: port is '70000'")


def test_help_of_the_installed_command_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    [script] = entry_points(group="console_scripts", name="labelmint-serve")
    with pytest.raises(SystemExit) as stop:
        script.load()(["--help"])

    assert stop.value.code == 0
    text = capsys.readouterr().out
    flags = [f"--{name.replace('_', '-')}" for name in ServiceSettings.model_fields]
    assert [flag for flag in flags if flag not in text] == []


def numbers_in(text: str) -> list[float]:
    """The numbers of a text, as a reader takes `2 GiB - 1`."""
    units = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
    found = re.findall(r"(\d+(?:,\d{3})*(?:\.\d+)?)(?: ([KMG]iB))?( - 1)?", text)
    return [float(digits.replace(",", "")) * units[unit] - bool(less) for digits, unit, less in found]


def test_readme_has_every_setting_with_its_default_and_its_bounds() -> None:
    table = README.read_text(encoding="utf-8").partition("| setting | default |")[2].partition("\n\n")[0]
    named = []
    for row in table.splitlines()[2:]:
        _, names, defaults, bounds, *_ = (cell.strip() for cell in row.split("|"))
        for place, name in enumerate(re.findall(r"`(\w+)`", names)):
            named.append(name)
            field = ServiceSettings.model_fields[name]
            if {int, float} & {field.annotation, *get_args(field.annotation)}:
                default = [*defaults.split(", "), defaults][place]
                assert numbers_in(default) == ([] if field.default is None else [field.default]), name
                limits = {kind: getattr(one, kind) for one in field.metadata for kind in LIMITS if hasattr(one, kind)}
                assert numbers_in(bounds) == list(limits.values()), name
                assert ("above" in bounds) == ("gt" in limits), name
    assert sorted(named) == sorted(ServiceSettings.model_fields)
