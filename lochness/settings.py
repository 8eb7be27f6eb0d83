"""Where a process's settings come from: a TOML file, then environment variables, then flags; the later wins.

Invariants:
1. Every refused value is a `ConfigurationError` that says which setting, which value and where it came from.
2. An unknown key in the file is an error, not ignored: a misspelt limit must not silently be the default.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from lochness.defaults import DEFAULT_ETCD
from lochness.errors import ConfigurationError
from lochness.log import check_level

#: Setting -> environment variable, for the settings that every command shares.
COMMON_VARIABLES: Final[Mapping[str, str]] = {
    "etcd": "LOCHNESS_ETCD",
    "etcd_ca": "LOCHNESS_ETCD_CA",
    "etcd_cert": "LOCHNESS_ETCD_CERT",
    "etcd_key": "LOCHNESS_ETCD_KEY",
    "log_level": "LOCHNESS_LOG_LEVEL",
}

SettingsType = TypeVar("SettingsType", bound="CommonSettings")


class CommonSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Settings of every process.

    `etcd` is one URL or several separated by commas; the three files are PEM, "" for none. `etcd_timeout_s` bounds
    every call to etcd.
    """

    etcd: str = DEFAULT_ETCD
    etcd_ca: str = ""
    etcd_cert: str = ""
    etcd_key: str = ""
    etcd_timeout_s: float = 4.0
    log_level: str = "info"

    def check(self) -> None:
        """Raise ConfigurationError when values contradict each other."""
        if self.etcd_timeout_s <= 0:
            raise ConfigurationError(f"etcd_timeout_s must be above 0, got {self.etcd_timeout_s}")
        check_level(self.log_level)


def load_settings(
    kind: type[SettingsType],
    *,
    file: Path | None,
    table: str = "",
    environment: Mapping[str, str],
    variables: Mapping[str, str],
    flags: Mapping[str, Any],
) -> SettingsType:
    """Settings of type `kind` from the three sources.

    The file's top-level keys are the settings; `table`, when given, names a table of it whose keys win over them (other
    tables are other daemons' and are not looked at). `variables` maps settings to environment variables; flags that
    are None were not given. Raises ConfigurationError.
    """
    names = {field.name: field for field in msgspec.structs.fields(kind)}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}

    def take(name: str, value: Any, source: str) -> None:
        if name not in names:
            raise ConfigurationError(f"unknown setting {name!r} in {source}; known: {', '.join(sorted(names))}")
        if isinstance(value, float) and not math.isfinite(value):  # TOML has inf and nan, a limit can be neither
            raise ConfigurationError(f"setting {name!r} from {source} must be a finite number, got {value}")
        values[name] = value
        sources[name] = source

    for name, value in (_file_values(file, table, names) if file is not None else {}).items():
        take(name, value, f"the file {file}")
    for name, variable in variables.items():
        if environment.get(variable):
            take(name, _parsed(environment[variable], names[name].type), f"the environment variable {variable}")
    for name, value in flags.items():
        if value is not None:
            take(name, value, f"the flag --{name.replace('_', '-')}")
    try:
        settings = msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        name = str(error).rpartition("`$.")[2].rstrip("`").partition(".")[0].partition("[")[0]
        raise ConfigurationError(f"setting {name!r} from {sources.get(name, 'the defaults')}: {error}") from error
    settings.check()
    return settings


def _file_values(file: Path, table: str, names: Mapping[str, Any]) -> dict[str, Any]:
    try:
        content = tomllib.loads(file.read_text())
    except OSError as error:
        raise ConfigurationError(f"cannot read the configuration file {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the configuration file {file} is not valid TOML: {error}") from error
    own = content.pop(table, {}) if table else {}
    if not isinstance(own, dict):
        raise ConfigurationError(f"[{table}] must be a table in the file {file}, got {own!r}")
    shared = {name: value for name, value in content.items() if name in names or not isinstance(value, dict)}
    return {**shared, **own}


def _parsed(text: str, kind: Any) -> Any:
    """An environment variable's text as the setting's type, where it reads as one; else the text, refused later."""
    if kind is str:
        return text
    if kind in (list[str], tuple[str, ...]):
        return [part.strip() for part in text.split(",") if part.strip()]
    if kind is bool:
        return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}.get(text.lower(), text)
    try:
        return kind(text)
    except (TypeError, ValueError):
        return text
