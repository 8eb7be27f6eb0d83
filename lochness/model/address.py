"""IP and MAC addresses as text in one spelling."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from functools import lru_cache
from typing import Final

from lochness.errors import ValidationError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_NORMAL_IPV4: Final = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")
_NORMAL_MAC: Final = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}(?:(?::[0-9a-f]{2}){2})?")
_MAC_FORMS: Final = (
    re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}(?:(?::[0-9a-f]{2}){2})?", re.IGNORECASE),
    re.compile(r"[0-9a-f]{2}(?:-[0-9a-f]{2}){5}(?:(?:-[0-9a-f]{2}){2})?", re.IGNORECASE),
    re.compile(r"[0-9a-f]{4}(?:\.[0-9a-f]{4}){2}(?:\.[0-9a-f]{4})?", re.IGNORECASE),
)


def normalized_mac(text: str, field: str = "mac") -> str:
    """`text`, a MAC of 6 or 8 bytes in colon, dash or dotted form, in lower case with colons; "" stays "".

    Raises ValidationError naming `field`.
    """
    if not text or _NORMAL_MAC.fullmatch(text):
        return text
    if not any(form.fullmatch(text) for form in _MAC_FORMS):
        raise ValidationError(f"{field} must be a MAC address, got {text!r}", field=field)
    digits = re.sub(r"[^0-9a-f]", "", text.lower())
    return ":".join(digits[i : i + 2] for i in range(0, len(digits), 2))


def guest_mac(guest_id: str) -> str:
    """A guest's own MAC: 02 (locally administered, unicast), then the first five bytes of the MD5 of its id's text."""
    digest = hashlib.md5(guest_id.encode(), usedforsecurity=False).digest()
    return "02:" + digest[:5].hex(":")


def parse_ip(text: str, field: str) -> IPAddress:
    """Raises ValidationError naming `field` unless `text` is an IPv4 or IPv6 address."""
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise ValidationError(f"{field} must be an IP address, got {text!r}", field=field) from error


@lru_cache(maxsize=4096)  # an address that is taken comes back in the commit's outcome and in the watch
def ip_number(text: str, field: str = "ip") -> int:
    """An IPv4 or IPv6 address as a number. Raises ValidationError naming `field`."""
    if _NORMAL_IPV4.fullmatch(text):
        first, second, third, fourth = text.split(".")
        return int(first) << 24 | int(second) << 16 | int(third) << 8 | int(fourth)
    return int(parse_ip(text, field))


def ip_text(number: int, version: int) -> str:
    """The canonical text of the address `number` of IP `version` 4 or 6. `number` must fit."""
    if version == 4:
        return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return str(ipaddress.IPv6Address(number))


def normalized_ip(text: str, field: str) -> str:
    """`text`, an IP address, in its canonical form; "" stays ""."""
    # Most addresses that are read have been normalised before, and a list has thousands.
    if not text or _NORMAL_IPV4.fullmatch(text):
        return text
    return str(parse_ip(text, field))


def parse_network(text: str, field: str) -> IPNetwork:
    """Raises ValidationError naming `field` unless `text` is a network such as 10.0.0.0/24; host bits are dropped."""
    try:
        if "/" not in text:
            raise ValueError("no prefix length")
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ValidationError(f"{field} must be a network like 10.0.0.0/24, got {text!r}", field=field) from error


def normalized_network(text: str, field: str) -> str:
    """`text`, a network, in its canonical form; "" stays ""."""
    return str(parse_network(text, field)) if text else ""
