"""What do domains hold that no placement knows of?"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from lochness.capacity import UnboundUse
from lochness_node.driver.protocol import Domain


def unbound_use(domains: Iterable[Domain], bound: Collection[str]) -> UnboundUse:
    """What is held by the active ones of `domains` that are foreign or not among the guests `bound` here."""
    held = [
        domain
        for domain in domains
        if domain.state.is_active and (domain.ownership is None or domain.ownership.guest_id not in bound)
    ]
    return UnboundUse(
        domains=len(held),
        memory_mb=sum(domain.memory_mb for domain in held),
        vcpus=sum(domain.vcpus for domain in held),
    )
