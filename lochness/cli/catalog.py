"""Which nouns and commands are there, and where is each one's code?

1. Only what a command line names is loaded: the help of the whole knows each by its line here.
2. A test holds these lines against the help texts of the commands themselves.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

import typer
from typer.core import TyperGroup

from lochness.cli.command import command


@dataclass(frozen=True, slots=True)
class Entry:
    """A word after `lochness`: its module below lochness.cli, its function there ("" for a noun), its help."""

    module: str
    help: str
    function: str = ""


NOUNS: Final = {
    "hv": Entry("hv", "Hypervisors: the physical machines."),
    "guest": Entry("guest", "Guests: the virtual machines."),
    "network": Entry("network", "Networks: what guests ask for; each has subnets."),
    "subnet": Entry("subnet", "Subnets: IP networks with a range of addresses for guests."),
    "flavor": Entry("flavor", "Flavors: image, memory, disk and CPUs of a guest."),
    "image": Entry("image", "Images: what guests' disks start from."),
    "fwgroup": Entry("fwgroup", "Firewall groups: rules for what comes in to guests."),
    "vlan": Entry("vlan", "VLANs: the tags."),
    "vlangroup": Entry("vlangroup", "VLAN groups: sets of tags that a guest gets as one."),
    "config": Entry("config", "Settings of the whole cluster."),
    "token": Entry("token", "Tokens: who may ask the controller, and for what."),
    "job": Entry("job", "Jobs: what was asked for, and how it went."),
    "context": Entry("context", "Contexts: controllers known by a name, with their token and CA."),
}
COMMANDS: Final = {
    "top": Entry("top", "Show the hosts: alive, memory, disk and CPUs used of those there are, guests", "top"),
    "events": Entry("events", "Print every change of the cluster, in order", "events"),
    "explain": Entry("explain", "Say where a guest would go now", "explain"),
    "capacity": Entry("capacity", "Say how many more guests of each flavor fit, and what runs out first.", "capacity"),
    "apply": Entry(
        "apply", "Make networks, subnets, images, flavors, firewall groups and VLANs what a file says", "apply"
    ),
    "completion": Entry("completion", "Print what a shell must read to complete lochness's words", "completion"),
    "fsck": Entry("fsck", "Check every promise over one snapshot of the store.", "fsck"),
    "backup": Entry(
        "backup", "Write the whole key space, at one revision, to a file that only you can read.", "backup"
    ),
    "restore": Entry("backup", "Make the key space what a backup says.", "restore"),
}
ENTRIES: Final = {**NOUNS, **COMMANDS}


class LoadedCommands(MutableMapping[str, Any]):
    """The commands by name, each made when it is asked for."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = _made(name, ENTRIES[name])
        return self._made[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._made[name] = value

    def __delitem__(self, name: str) -> None:
        raise TypeError("commands are not taken away")

    def __contains__(self, name: object) -> bool:
        return name in ENTRIES

    def __iter__(self) -> Iterator[str]:
        return iter(ENTRIES)

    def __len__(self) -> int:
        return len(ENTRIES)


def _made(name: str, entry: Entry) -> Any:
    module = importlib.import_module(f"lochness.cli.{entry.module}")
    if not entry.function:
        return typer.main.get_command(module.app)
    alone = typer.Typer(name=name, rich_markup_mode=None, add_completion=False)
    command(alone, name)(getattr(module, entry.function))
    return typer.main.get_command(alone)


class Root(TyperGroup):
    """`lochness` itself."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = LoadedCommands()

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  # as it is called
        """The help's lists, without loading what they name."""
        width = max(len(name) for name in ENTRIES)
        for title, entries in (("Nouns", NOUNS), ("Commands", COMMANDS)):
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), entry.help) for name, entry in entries.items()])
