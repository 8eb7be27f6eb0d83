"""Which controllers does the operator know by a name, and which one is meant this time?

`config.toml` below ~/.config/lochness ($XDG_CONFIG_HOME is heeded) holds them:

    current = "prod"

    [contexts.prod]
    server = "https://10.0.0.2:17000"
    token = "@/run/keys/lochness"          # a word, or @FILE: what that file holds
    ca = "/etc/ssl/lochness-ca.pem"

1. Flags win over environment variables, these over the context, this over the defaults.
2. The token and CA of a context go to the server of that context and to no other.
3. The file is written whole or not at all, of mode 0600; comments in it are not kept.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from lochness.defaults import DEFAULT_SERVER
from lochness.errors import ConfigurationError, NotFoundError, ValidationError

_TOKEN_BYTES_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class Connection:
    """How a controller is reached. `token` is as given, a word or @FILE; `ca` a file of PEM certificates; "" for none.

    `context` is the name it came from, "" when it came from flags, the environment or the defaults.
    """

    server: str = DEFAULT_SERVER
    token: str = ""
    ca: str = ""
    context: str = ""

    def secret(self) -> str:
        """The token itself, read from its file where it is one. Raises ConfigurationError."""
        if not self.token.startswith("@"):
            return _checked_token(self.token, "the token")
        file = Path(self.token[1:]).expanduser()
        try:
            with file.open("rb") as content:
                text = content.read(_TOKEN_BYTES_MAX + 1).decode("ascii", "replace").strip()
        except OSError as error:
            raise ConfigurationError(f"cannot read the token file {file}: {error.strerror}") from error
        if not text:
            raise ConfigurationError(f"the token file {file} is empty")
        return _checked_token(text, f"the token in {file}")


def _checked_token(text: str, what: str) -> str:
    # It becomes a header, and must neither end it nor be longer than servers take.
    if len(text) > _TOKEN_BYTES_MAX or any(not "!" <= letter <= "~" for letter in text):
        raise ConfigurationError(
            f"{what} must be at most {_TOKEN_BYTES_MAX} printable ASCII characters, without spaces"
        )
    return text


@dataclass(slots=True)
class Contexts:
    """What config.toml says: the contexts by name, and the one that is current, "" for none."""

    current: str = ""
    contexts: dict[str, Connection] = field(default_factory=dict)

    def named(self, name: str) -> Connection:
        """The context called `name`. Raises NotFoundError."""
        if name not in self.contexts:
            error = NotFoundError("context", name)
            there = ", ".join(sorted(self.contexts)) or "none"
            error.message += f"; there are: {there} (lochness context set makes one)"
            raise error
        return self.contexts[name]


@dataclass(frozen=True, slots=True)
class Given:
    """What this command line and its environment say about the controller; None: nothing."""

    context: str | None = None
    server: str | None = None
    token: str | None = None
    ca: str | None = None


def config_file(environment: Mapping[str, str]) -> Path:
    """Where the contexts are kept."""
    base = environment.get("XDG_CONFIG_HOME") or ""
    home = Path(base) if base.startswith("/") else Path(environment.get("HOME") or "~").expanduser() / ".config"
    return home / "lochness" / "config.toml"


def connection(given: Given, known: Contexts) -> Connection:
    """The controller that is meant. Pure. Raises NotFoundError for a context that is not there."""
    name = given.context or ("" if given.server is not None else known.current)
    chosen = Connection()
    if name:
        chosen = known.named(name)
    if given.server is not None and given.server.rstrip("/") != chosen.server.rstrip("/"):
        chosen = Connection(server=given.server)  # not to a stranger with the context's token
    return Connection(
        server=chosen.server,
        token=given.token if given.token is not None else chosen.token,
        ca=given.ca if given.ca is not None else chosen.ca,
        context=chosen.context,
    )


def read_contexts(file: Path) -> Contexts:
    """What the file says; nothing when there is none. Raises ConfigurationError that names the file."""
    try:
        text = file.read_text()
    except FileNotFoundError:
        return Contexts()
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file} is not valid TOML: it is not UTF-8") from error
    import tomllib

    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file} is not valid TOML: {error}") from error
    return _parsed(content, file)


def _parsed(content: Mapping[str, Any], file: Path) -> Contexts:
    for name in content:
        if name not in ("current", "contexts"):
            raise ConfigurationError(f"{file}: unknown setting {name!r}; known: contexts, current")
    current, tables = content.get("current", ""), content.get("contexts", {})
    if not isinstance(current, str) or not isinstance(tables, dict):
        raise ConfigurationError(f"{file}: current must be a string and contexts a table")
    known = {each.name for each in fields(Connection)} - {"context"}
    contexts: dict[str, Connection] = {}
    for name, table in tables.items():
        if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
            raise ConfigurationError(f"{file}: contexts.{name} must be a table of strings")
        if unknown := sorted(set(table) - known):
            text = f"{file}: unknown setting {unknown[0]!r} in contexts.{name}; known: {', '.join(sorted(known))}"
            raise ConfigurationError(text)
        contexts[name] = Connection(**table, context=name)
    if current and current not in contexts:
        raise ConfigurationError(f"{file}: the current context {current!r} is not among contexts")
    return Contexts(current, contexts)


def is_open_to_others(file: Path) -> bool:
    """Whether others than its owner may read the file."""
    try:
        return bool(file.stat().st_mode & 0o077)
    except OSError:
        return False


def checked_name(name: str) -> str:
    """`name`, fit for a context. Raises ValidationError."""
    if (
        not name
        or len(name) > 64
        or not all(letter.isascii() and (letter.isalnum() or letter in "._-") for letter in name)
    ):
        raise ValidationError(
            f"a context's name is of letters, digits, '.', '_' and '-', at most 64, got {name!r}", field="name"
        )
    return name


def rendered(known: Contexts) -> str:
    """The file's content."""
    lines = ["# Written by lochness context; comments are not kept.", f"current = {_quoted(known.current)}"]
    for name, each in sorted(known.contexts.items()):
        lines += ["", f"[contexts.{_quoted(name)}]", f"server = {_quoted(each.server)}"]
        lines += [f"{key} = {_quoted(value)}" for key, value in (("token", each.token), ("ca", each.ca)) if value]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """`text` as a basic string of TOML."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(letter if letter.isprintable() else f"\\U{ord(letter):08x}" for letter in escaped) + '"'


def write_contexts(known: Contexts, file: Path) -> None:
    """Make the file say this. Raises ConfigurationError."""
    from lochness.cli.whole_files import write_whole  # loads what --help can do without

    target = Path(os.path.realpath(file))  # a link to it stays a link
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(target, [rendered(known).encode()])
    except OSError as error:
        raise ConfigurationError(f"cannot write {target}: {error.strerror}") from error
