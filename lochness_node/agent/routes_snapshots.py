"""Which requests about snapshots does the agent answer? Of a whole guest, and below /disks/{disk} of one disk of it.

What changes a disk is a job: 202, X-Guest-Job-ID, and the guest as it is now.
"""

from __future__ import annotations

from typing import Final

from litestar import delete, get, post
from litestar.response import Stream

from lochness_node.agent.aside import aside
from lochness_node.agent.asked import agent_of, parsed_guest_id, request_id_of
from lochness_node.agent.guests.decide_snapshots import snapshot_name
from lochness_node.agent.replies import AnyRequest, Reply, reply

_GUEST: Final = "/guests/{guest_id:str}/snapshots"
_DISK: Final = "/guests/{guest_id:str}/disks/{disk:str}/snapshots"


@get([_GUEST, _DISK])
async def list_snapshots(request: AnyRequest, guest_id: str, disk: str = "") -> Reply:
    agent, id = agent_of(request), parsed_guest_id(guest_id)
    found = await aside(lambda: agent.snapshots(id, disk))
    return reply([snapshot.fields() for snapshot in found])


@post([_GUEST, _DISK])
async def create_snapshot(request: AnyRequest, guest_id: str, disk: str = "") -> Reply:
    agent, id, body = agent_of(request), parsed_guest_id(guest_id), await request.body()
    guest, job = await aside(lambda: agent.create_snapshot(id, disk, body, request_id_of(request)))
    return reply(guest, status=202, job_id=job.id)


@get([f"{_GUEST}/{{name:str}}", f"{_DISK}/{{name:str}}"])
async def get_snapshot(request: AnyRequest, guest_id: str, name: str, disk: str = "") -> Reply:
    agent, id, name = agent_of(request), parsed_guest_id(guest_id), snapshot_name(name)
    return reply((await aside(lambda: agent.snapshot(id, disk, name))).fields())


@delete([f"{_GUEST}/{{name:str}}", f"{_DISK}/{{name:str}}"], status_code=202)
async def delete_snapshot(request: AnyRequest, guest_id: str, name: str, disk: str = "") -> Reply:
    agent, id, name = agent_of(request), parsed_guest_id(guest_id), snapshot_name(name)
    guest, job = await aside(lambda: agent.delete_snapshot(id, disk, name, request_id_of(request)))
    return reply(guest, status=202, job_id=job.id)


@post([f"{_GUEST}/{{name:str}}/rollback", f"{_DISK}/{{name:str}}/rollback"])
async def roll_back(request: AnyRequest, guest_id: str, name: str, disk: str = "") -> Reply:
    agent, id, name = agent_of(request), parsed_guest_id(guest_id), snapshot_name(name)
    guest, job = await aside(lambda: agent.roll_back(id, disk, name, request_id_of(request)))
    return reply(guest, status=202, job_id=job.id)


@get([f"{_GUEST}/{{name:str}}/download", f"{_DISK}/{{name:str}}/download"])
async def download_snapshot(request: AnyRequest, guest_id: str, name: str, disk: str = "") -> Stream:
    agent, id, name = agent_of(request), parsed_guest_id(guest_id), snapshot_name(name)
    download = await aside(lambda: agent.download(id, disk, name))
    return Stream(
        download.pieces(),
        media_type="application/octet-stream",
        headers={
            "Content-Length": str(download.size_bytes),
            "Content-Disposition": f'attachment; filename="{id}-{disk or "disk"}-{name}.qcow2"',
        },
    )


SNAPSHOT_ROUTES: Final = (
    list_snapshots, create_snapshot, get_snapshot, delete_snapshot, roll_back, download_snapshot,
)  # fmt: skip
