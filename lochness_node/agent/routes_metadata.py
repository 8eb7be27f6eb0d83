"""Which requests about metadata does the agent answer? Those of the host, and those of a guest.

A PATCH merges: null or "" unsets a name, everything else that is in it is set, the answer is the whole.
"""

from __future__ import annotations

from typing import Final

from litestar import get, patch

from lochness_node.agent.aside import aside
from lochness_node.agent.asked import agent_of, parsed_guest_id
from lochness_node.agent.replies import AnyRequest, Reply, reply


@get("/metadata")
async def host_metadata(request: AnyRequest) -> Reply:
    return reply(await aside(agent_of(request).host_metadata))


@patch("/metadata")
async def patch_host_metadata(request: AnyRequest) -> Reply:
    agent, body = agent_of(request), await request.body()
    return reply(await aside(lambda: agent.patch_host_metadata(body)))


@get("/guests/{guest_id:str}/metadata")
async def guest_metadata(request: AnyRequest, guest_id: str) -> Reply:
    agent, id = agent_of(request), parsed_guest_id(guest_id)
    return reply(await aside(lambda: agent.guest_metadata(id)))


@patch("/guests/{guest_id:str}/metadata")
async def patch_guest_metadata(request: AnyRequest, guest_id: str) -> Reply:
    agent, id, body = agent_of(request), parsed_guest_id(guest_id), await request.body()
    return reply(await aside(lambda: agent.patch_guest_metadata(id, body)))


METADATA_ROUTES: Final = (host_metadata, patch_host_metadata, guest_metadata, patch_guest_metadata)
