"""How is a firewall rule written by a person?

    ACTION PROTOCOL [PORT[-PORT]] [from CIDR|GROUP]      allow tcp 80-443 from 10.0.0.0/8

PROTOCOL "any" is every one. GROUP is the id or name of a firewall group. Pure, given what names stand for.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from lochness.errors import ValidationError

if TYPE_CHECKING:
    from lochness.model.record import JSONObject

FORM: Final = "ACTION PROTOCOL [PORT[-PORT]] [from CIDR|GROUP]"
_PORT_MAX: Final = 65535


def parsed_rule(text: str, group_id: Callable[[str], str]) -> JSONObject:
    """A rule as the API has it. Raises ValidationError, and what `group_id` raises."""
    words = text.split()
    source = ""
    if "from" in words:
        at = words.index("from")
        if len(words) != at + 2:
            raise _wrong(text)
        source = words[at + 1]
        words = words[:at]
    if len(words) not in (2, 3) or words[0] not in ("allow", "deny"):
        raise _wrong(text)
    start, end = _ports(text, words[2]) if len(words) == 3 else (0, 0)
    rule: JSONObject = {
        "group": "", "portStart": start, "portEnd": end,
        "protocol": "" if words[1] == "any" else words[1], "action": words[0],
    }  # fmt: skip
    if source and _is_network(source):
        rule["source"] = source
    elif source:
        rule["group"] = group_id(source)
    return rule


def _wrong(text: str) -> ValidationError:
    return ValidationError(f"a rule is {FORM}, with allow or deny as ACTION; got {text!r}", field="rules")


def _ports(text: str, word: str) -> tuple[int, int]:
    first, dash, last = word.partition("-")
    try:
        start, end = int(first), int(last if dash else first)
    except ValueError:
        raise _wrong(text) from None
    if not 0 <= start <= end <= _PORT_MAX:
        raise ValidationError(f"ports are 0 to {_PORT_MAX}, the first before the last; got {text!r}", field="rules")
    return start, end


def _is_network(word: str) -> bool:
    try:
        ipaddress.ip_network(word, strict=False)
    except ValueError:
        return False
    return True


def rule_text(rule: JSONObject, group_names: Mapping[str, str] | None = None) -> str:
    """A rule of the API as a person writes it."""
    words = [str(rule.get("action") or "?"), str(rule.get("protocol") or "any")]
    start, end = rule.get("portStart") or 0, rule.get("portEnd") or 0
    if start or end:
        words.append(str(start) if start == end else f"{start}-{end}")
    group = str(rule.get("group") or "")
    if source := rule.get("source") or (group_names or {}).get(group, group):
        words += ["from", str(source)]
    return " ".join(words)
