"""lochness fwgroup: firewall rules for what comes in to guests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lochness.cli.arguments import IdOption, MetadataOption, NameOption, new_record
from lochness.cli.collection import Specs, Targets, add_delete, add_list, add_show, create_each, modify_each
from lochness.cli.command import command, noun
from lochness.cli.fwrules import FORM, parsed_rule, rule_text
from lochness.cli.output import Column, plain
from lochness.cli.session import Kind, Session, name_of

if TYPE_CHECKING:
    from lochness.model.record import JSONObject

app = noun("fwgroup", "Firewall groups: rules for what comes in to guests.")

RulesOption = Annotated[
    list[str] | None, typer.Option("--rule", metavar="RULE", help=f"'{FORM}'; may be repeated.", show_default=False)
]


def _rules_text(group: JSONObject) -> str:
    rules = group.get("rules")
    return "; ".join(rule_text(rule) for rule in rules if isinstance(rule, dict)) if isinstance(rules, list) else ""


COLUMNS = [
    Column("NAME", lambda group: name_of(group) or "-"),
    Column("ID", lambda group: plain(group.get("id"))),
    Column("RULES", lambda group: _rules_text(group) or "-"),
]

add_list(app, Kind.FWGROUP, COLUMNS)
add_show(app, Kind.FWGROUP, "fwgroup show web")


def _rules(session: Session, texts: list[str] | None) -> list[JSONObject] | None:
    if texts is None:
        return None
    return [parsed_rule(text, lambda word: session.id_of(Kind.FWGROUP, word)) for text in texts if text]


@command(app, "create")
def create(
    session: Session,
    specs: Specs = None,
    rule: RulesOption = None,
    id: IdOption = "",
    name: NameOption = None,
    metadata: MetadataOption = None,
) -> None:
    """Make a firewall group.

    Example: lochness fwgroup create --name web --rule "allow tcp 80-443" --rule "allow tcp 22 from 10.0.0.0/8"
    """
    create_each(session, Kind.FWGROUP, specs, new_record(id, name, metadata, rules=_rules(session, rule)))


@command(app, "modify")
def modify(
    session: Session,
    fwgroups: Targets,
    rule: RulesOption = None,
    name: NameOption = None,
    metadata: MetadataOption = None,
) -> None:
    """Change firewall groups; --rule gives them these rules in place of all they have, --rule '' none.

    Example: lochness fwgroup modify web --rule "allow tcp 443"
    """
    modify_each(session, Kind.FWGROUP, fwgroups, name, metadata, rules=_rules(session, rule))


add_delete(app, Kind.FWGROUP, "Remove firewall groups.", "fwgroup delete web")
