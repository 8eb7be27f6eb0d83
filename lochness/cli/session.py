"""What does one run of a command share: the controller, the form of its output, and what names stand for?

1. Wherever an id is expected, the name in the metadata ("name") does as well; an id wins over a name.
2. A name that several objects have is refused with their ids: nothing is done to the wrong one.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final, ParamSpec

from lochness.cli.contexts import Connection, Given, config_file, connection, is_open_to_others, read_contexts
from lochness.cli.exits import error_line, exit_status
from lochness.cli.output import Format, shown
from lochness.errors import LochnessError, NotFoundError, ValidationError
from lochness.ids import is_id, parse_id

if TYPE_CHECKING:
    from lochness.api_client import ApiClient
    from lochness.model.record import JSONObject

Arguments = ParamSpec("Arguments")

#: Ids in an error line; more of them would bury it.
_MATCHES_SHOWN_MAX: Final = 10


class Kind(StrEnum):
    """What the API has collections of; the value is the word for one."""

    HYPERVISOR = "hypervisor"
    GUEST = "guest"
    NETWORK = "network"
    SUBNET = "subnet"
    FLAVOR = "flavor"
    IMAGE = "image"
    FWGROUP = "fwgroup"
    VLAN = "vlan"
    VLANGROUP = "vlangroup"
    TOKEN = "token"
    JOB = "job"

    @property
    def path(self) -> str:
        """The collection's path in the API."""
        return {"vlan": "/vlans/tags", "vlangroup": "/vlans/groups"}.get(self.value, f"/{self.value}s")

    @property
    def noun(self) -> str:
        """What the command line calls it."""
        return "hv" if self is Kind.HYPERVISOR else self.value

    @property
    def plural(self) -> str:
        """The word for several, in a sentence."""
        words = {"vlan": "VLANs", "vlangroup": "VLAN groups", "fwgroup": "firewall groups"}
        return words.get(self.value, f"{self.value}s")


@dataclass(slots=True)
class Session:
    """One run of a command. `failures` holds the exit status of each object that failed, in order.

    `limit_s` is the limit of each call to the controller, None for its client's own.
    """

    given: Given = Given()
    form: Format = Format.TABLE
    failures: list[int] = field(default_factory=list)
    limit_s: float | None = None
    _client: ApiClient | None = None
    _lists: dict[Kind, list[JSONObject]] = field(default_factory=dict)

    @property
    def config_file(self) -> Path:
        """Where contexts are kept."""
        return config_file(os.environ)

    @property
    def connection(self) -> Connection:
        """The controller that is meant. Raises ConfigurationError, NotFoundError for an unknown context."""
        file = self.config_file
        return connection(self.given, read_contexts(file))

    def give(self, **given: str | None) -> None:
        """What stands behind the verb wins over what stands before the noun; None: it does not."""
        self.given = dataclasses.replace(self.given, **{name: text for name, text in given.items() if text is not None})

    @property
    def client(self) -> ApiClient:
        """The connection, opened by the first call.

        Raises ConfigurationError for what can never work, ValidationError for a server that is no URL.
        """
        if self._client is None:
            # httpx takes longer to import than --help may take, and where it can it loads a command line of its own,
            # which is half of that.
            sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # Python's own way to say "not here"
            from lochness.api_client import DEFAULT_TIMEOUT_S, ApiClient

            meant = self.connection
            if meant.token and meant.context and is_open_to_others(self.config_file):
                say(f"{self.config_file} holds a token and others can read it: chmod 600 {self.config_file}")
            limit_s = self.limit_s or DEFAULT_TIMEOUT_S
            self._client = ApiClient(meant.server, token=meant.secret(), ca=meant.ca, timeout_s=limit_s)
        return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def records(self, kind: Kind) -> list[JSONObject]:
        """All objects of a kind, asked for once per command."""
        if kind not in self._lists:
            self._lists[kind] = self.client.records(kind.path)
        return self._lists[kind]

    def id_of(self, kind: Kind, word: str) -> str:
        """The id that `word`, an id or a name, stands for. Raises NotFoundError, ValidationError when ambiguous."""
        if kind is Kind.VLAN:
            return self._tag_of(word)
        if is_id(word):
            return parse_id(word)
        if kind is Kind.JOB:
            raise ValidationError(f"a job's id is a UUID, got {word!r}", field="id")
        return matching_id(kind, word, self.records(kind))

    def _tag_of(self, word: str) -> str:
        """The tag that `word`, a number or a description, stands for."""
        if word.isascii() and word.isdecimal():
            from lochness.model.vlan import parse_tag

            return str(parse_tag(word))
        return matching_id(Kind.VLAN, word, self.records(Kind.VLAN))

    def path_of(self, kind: Kind, word: str) -> str:
        """The path of the object that `word` stands for."""
        return f"{kind.path}/{self.id_of(kind, word)}"

    def names(self, kind: Kind) -> dict[str, str]:
        """What to call each object of a kind: its name, else its id."""
        return {identity_of(record): name_of(record) or identity_of(record) for record in self.records(kind)}

    def for_each(self, words: Sequence[str], action: Callable[[str], None]) -> None:
        """Attempt `action` with each word."""
        for word in expanded(words):
            self.attempt(action, word)

    def attempt(self, action: Callable[Arguments, None], *arguments: Arguments.args, **named: Arguments.kwargs) -> None:
        """Call `action`. Its failure is told and its exit status remembered, and the caller goes on with the next."""
        try:
            action(*arguments, **named)
        except LochnessError as error:
            say(error_line(error))
            self.failures.append(exit_status(error))


def matching_id(kind: Kind, name: str, records: Iterable[JSONObject]) -> str:
    """The id of the one record that is called `name`. Raises NotFoundError, ValidationError when there are several."""
    found = [identity_of(record) for record in records if name_of(record) == name]
    if not found:
        raise NotFoundError(kind, name)
    if len(found) > 1:
        ids = ", ".join(sorted(found)[:_MATCHES_SHOWN_MAX]) + (" ..." if len(found) > _MATCHES_SHOWN_MAX else "")
        raise ValidationError(f"the name {name!r} is ambiguous, {len(found)} {kind}s have it: {ids}", field="id")
    return found[0]


def name_of(record: JSONObject) -> str:
    """The record's name in its metadata, a VLAN's description, a token's name, "" when it has none."""
    metadata = record.get("metadata")
    if isinstance(metadata, dict):
        name = metadata.get("name")
    else:
        name = record.get("description" if "tag" in record else "name")
    return name if isinstance(name, str) else ""


def identity_of(record: JSONObject) -> str:
    """The record's id, a VLAN's tag, "" when it has none."""
    return str(record.get("id") or record.get("tag") or "")


def expanded(words: Sequence[str]) -> list[str]:
    """`words`, a "-" among them replaced by those on standard input: a line that begins with "{" is one, whole.

    Raises ValidationError for what is no text there, before anything is done.
    """
    result: list[str] = []
    for word in words:
        if word != "-":
            result.append(word)
            continue
        found: list[str] = []
        for number, line in enumerate(text_lines(), start=1):
            if not all(letter.isprintable() or letter.isspace() for letter in line):
                raise ValidationError(f"line {number} of standard input is not text", field="stdin")
            found += [line.strip()] if line.lstrip().startswith("{") else line.split()
        if not found:
            say("there is nothing on standard input: nothing was done")
        result += found
    return result


def text_lines() -> Iterator[str]:
    """The lines of standard input. Raises ValidationError when it cannot be read."""
    try:
        yield from sys.stdin
    except UnicodeDecodeError as error:
        raise ValidationError("standard input is not UTF-8 text", field="stdin") from error
    except OSError as error:
        raise ValidationError(f"cannot read standard input: {error.strerror}", field="stdin") from error


def say(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"lochness: {shown(text)}\n")
    sys.stderr.flush()
