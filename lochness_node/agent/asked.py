"""What do all handlers read out of a request? The agent that serves it, and ids in one spelling."""

from __future__ import annotations

from lochness.identity import GuestID, parse_id
from lochness_node.agent.agent import Agent
from lochness_node.agent.replies import AnyRequest
from lochness_node.agent.request_ids import STATE_NAME


def agent_of(request: AnyRequest) -> Agent:
    agent: Agent = request.app.state["agent"]
    return agent


def request_id_of(request: AnyRequest) -> str:
    return str(request.scope["state"].get(STATE_NAME, ""))


def parsed_guest_id(text: str) -> GuestID:
    """Raises ValidationError."""
    return GuestID(parse_id(text, field="guest"))
