"""Which requests about a guest's counters does the agent answer?

The counters begin with the guest's start and are all 0 while it is off. Times are in nanoseconds.
"""

from __future__ import annotations

from typing import Final

from litestar import get

from lochness_node.agent.aside import aside
from lochness_node.agent.asked import agent_of, parsed_guest_id
from lochness_node.agent.guests.metrics import cpu_fields, disk_fields, nic_fields
from lochness_node.agent.replies import AnyRequest, Reply, reply


@get("/guests/{guest_id:str}/metrics/cpu")
async def cpu_metrics(request: AnyRequest, guest_id: str) -> Reply:
    agent, id = agent_of(request), parsed_guest_id(guest_id)
    return reply(cpu_fields(await aside(lambda: agent.metrics(id))))


@get("/guests/{guest_id:str}/metrics/disk")
async def disk_metrics(request: AnyRequest, guest_id: str) -> Reply:
    agent, id = agent_of(request), parsed_guest_id(guest_id)
    return reply(disk_fields(await aside(lambda: agent.metrics(id))))


@get("/guests/{guest_id:str}/metrics/nic")
async def nic_metrics(request: AnyRequest, guest_id: str) -> Reply:
    agent, id = agent_of(request), parsed_guest_id(guest_id)
    return reply(nic_fields(await aside(lambda: agent.metrics(id))))


METRICS_ROUTES: Final = (cpu_metrics, disk_metrics, nic_metrics)
