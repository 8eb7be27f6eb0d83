"""Images over the agent's HTTP API, fetched from files and from a web server of our own."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import zstandard

from lochness.identity import new_id
from lochness_lab.machine import Machine
from lochness_lab.waiting import wait_until
from tests.contract.agent.agent_process import AgentProcess

MB = 1 << 20


class WebServer:
    """Serves `content` at every path; the second half only after `release`. Counts what it was asked for.

    With `tag` it tells an ETag and answers ranges; `break_off` times it hangs up after the half of what was asked for.
    """

    def __init__(self) -> None:
        self.content = b""
        self.claimed_bytes: int | None = None
        self.status = 200
        self.location = ""
        self.tag = ""
        self.break_off = 0
        self.ranges: list[str] = []
        self.release = threading.Event()
        self.requests: list[str] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.requests.append(self.path)
                range = self.headers.get("Range", "")
                web.ranges.append(range)
                is_same = self.headers.get("If-Range", web.tag) == web.tag
                start = int(range.removeprefix("bytes=").rstrip("-")) if web.tag and range and is_same else 0
                content = web.content[start:]
                self.send_response(206 if start else web.status)
                if web.location:
                    self.send_header("Location", web.location)
                if web.tag:
                    self.send_header("ETag", web.tag)
                if start:
                    whole = len(web.content)
                    self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
                self.send_header("Content-Length", str(web.claimed_bytes or len(content)))
                self.end_headers()
                half = len(content) // 2
                self.wfile.write(content[:half])
                self.wfile.flush()
                web.release.wait(20)
                if web.break_off:
                    web.break_off -= 1
                    self.close_connection = True
                    return
                self.wfile.write(content[half:])

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def serving(self) -> Iterator[None]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield
        finally:
            self.release.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join(10)


@pytest.fixture
def web() -> Iterator[WebServer]:
    server = WebServer()
    with server.serving():
        yield server


def qcow2(path: Path, *options: str) -> bytes:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, path, "8M"], check=True, timeout=30)
    return path.read_bytes()


def nothing_is_left(agent: AgentProcess, id: str) -> bool:
    return not [path for path in agent.image_dir.iterdir() if path.name.startswith(id)]


def test_an_image_with_its_kernel_is_fetched_and_checked(agent: AgentProcess, web: WebServer, tmp_path: Path) -> None:
    web.content, id = qcow2(tmp_path / "image.qcow2"), new_id()
    web.release.set()
    checksum = hashlib.sha256(web.content).hexdigest()
    kernel = agent.source("kernel", b"a kernel")
    request = {"id": id, "type": "kvm", "source": f"{web.url}/i", "sha256": checksum, "kernel": kernel, "cmdline": "a"}
    answer = agent.post("/images", request)
    assert list(answer.json())[:4] == ["id", "type", "size", "status"]
    job = agent.done(answer)
    assert (job["GuestID"], job["Action"], job["ImageID"]) == ("agent", "fetchImage", id)
    image = agent.get(f"/images/{id}").json()
    assert image == {
        "id": id, "type": "kvm", "size": len(web.content), "status": "complete", "sha256": checksum, "format": "qcow2",
        "message": "",
    }  # fmt: skip
    assert image in agent.get("/images").json()
    directory = agent.image_dir / id
    assert {path.name for path in directory.iterdir()} == {"disk.qcow2", "kernel", "image.json"}
    assert (directory / "disk.qcow2").read_bytes() == web.content
    assert (directory / "kernel").read_bytes() == b"a kernel"
    assert json.loads((directory / "image.json").read_text())["virtual_size"] == 8 * MB


def test_many_who_ask_for_one_image_cause_one_download(agent: AgentProcess, web: WebServer) -> None:
    web.content, id = bytes(MB), new_id()
    request = {"id": id, "source": f"{web.url}/i"}
    answers = [agent.post("/images", request) for _ in range(5)]
    assert len({answer.headers["X-Guest-Job-ID"] for answer in answers}) == 1
    wait_until(lambda: web.requests, limit_s=10, what="request for the image")
    assert agent.get(f"/images/{id}").json()["status"] == "downloading"
    assert agent.delete(f"/images/{id}").status_code == 409
    web.release.set()
    agent.done(answers[0])
    assert "is here already" in agent.done(agent.post("/images", request))["Message"]
    assert web.requests == ["/i"]


def test_different_images_are_fetched_side_by_side(agent: AgentProcess, web: WebServer) -> None:
    web.content = bytes(MB)
    answers = [agent.post("/images", {"id": new_id(), "source": f"{web.url}/{n}"}) for n in range(3)]
    wait_until(lambda: len(web.requests) == 3, limit_s=10, what="three requests at a time")
    web.release.set()
    for answer in answers:
        agent.done(answer)


def test_a_wrong_checksum_leaves_nothing(agent: AgentProcess) -> None:
    id = new_id()
    source = agent.source("wrong", b"content")
    job = agent.refused(agent.post("/images", {"id": id, "source": source, "sha256": "0" * 64}))
    assert job["Reason"] == "invalid"
    assert hashlib.sha256(b"content").hexdigest() in job["Message"]
    assert agent.get(f"/images/{id}").json()["status"] == "error"
    assert nothing_is_left(agent, id)
    agent.done(agent.post("/images", {"id": id, "source": source}))  # an error is not for ever
    assert agent.get(f"/images/{id}").json()["status"] == "complete"


def test_an_image_that_ends_early_leaves_nothing(agent: AgentProcess, web: WebServer) -> None:
    web.content, web.claimed_bytes, id = bytes(MB), 2 * MB, new_id()
    web.release.set()
    job = agent.refused(agent.post("/images", {"id": id, "source": web.url}))
    assert job["Reason"] == "unavailable"
    assert nothing_is_left(agent, id)


def test_an_image_over_the_limit_is_refused(agent: AgentProcess) -> None:
    id, path = new_id(), agent.source_dir / "large"
    with path.open("wb") as file:
        file.truncate((64 << 20) + 1)
    job = agent.refused(agent.post("/images", {"id": id, "source": f"file://{path}"}))
    assert "67108864 bytes" in job["Message"]
    assert nothing_is_left(agent, id)


def test_a_server_that_refuses_is_quoted(agent: AgentProcess, web: WebServer) -> None:
    web.status = 404
    web.release.set()
    job = agent.refused(agent.post("/images", {"id": new_id(), "source": f"{web.url}/i"}))
    assert "404" in job["Message"]


def test_a_redirect_to_a_file_is_not_followed(agent: AgentProcess, web: WebServer) -> None:
    web.status, web.location, id = 302, "file:///etc/passwd", new_id()
    web.release.set()
    agent.refused(agent.post("/images", {"id": id, "source": f"{web.url}/i"}))
    assert nothing_is_left(agent, id)


@pytest.mark.parametrize(
    "source",
    [
        "file:///etc/passwd",
        "file://{sources}/../outside",
        "file://{sources}/%2e%2e/outside",
        "file://{sources}/link",
        "file://{sources}/loop",
        "file://{sources}",
        "file://{sources}/nothing",
        "file://otherhost{sources}/inside",
        "file://{sources}/inside%00",
    ],
)
def test_files_are_taken_only_from_below_the_allowed_directory(agent: AgentProcess, source: str) -> None:
    agent.source("inside", b"allowed")
    (agent.directory / "outside").write_bytes(b"secret")
    for name, target in (("link", agent.directory / "outside"), ("loop", agent.source_dir / "loop")):
        (agent.source_dir / name).unlink(missing_ok=True)
        (agent.source_dir / name).symlink_to(target)
    id = new_id()
    job = agent.refused(agent.post("/images", {"id": id, "source": source.format(sources=agent.source_dir)}))
    assert job["Reason"] == "invalid"
    assert nothing_is_left(agent, id)


def test_an_image_that_names_another_file_of_the_host_is_refused(agent: AgentProcess, tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(bytes(8 * MB))
    backed = qcow2(tmp_path / "backed.qcow2", "-b", str(tmp_path / "base"), "-F", "raw")
    split = qcow2(tmp_path / "split.qcow2", "-o", f"data_file={tmp_path / 'data'}")
    for content, word in ((backed, "backing file"), (split, "data file")):
        job = agent.refused(agent.post("/images", {"id": new_id(), "source": agent.source("evil", content)}))
        assert word in job["Message"]


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("id", {"id": "../../x"}),
        ("id", {"id": ""}),
        ("source", {"source": ""}),
        ("source", {"source": "ftp://x/y"}),
        ("source", {"source": "/etc/passwd"}),
        ("source", {"source": "file:///a\nb"}),
        ("sha256", {"sha256": "abc"}),
        ("format", {"format": "vmdk"}),
        ("initrd", {"initrd": "file:///i"}),
        ("cmdline", {"kernel": "file:///k", "cmdline": "a\nb"}),
    ],
)
def test_what_is_wrong_with_a_request_is_named(agent: AgentProcess, field: str, changes: dict[str, str]) -> None:
    answer = agent.post("/images", {"id": new_id(), "source": "http://127.0.0.1/i", **changes})
    assert answer.status_code == 400, answer.text
    assert answer.json()["field"] == field


def test_an_image_does_not_change_under_its_id(agent: AgentProcess) -> None:
    id = agent.with_image()
    other = {"id": id, "source": agent.source("other", b"other")}
    job = agent.refused(agent.post("/images", other))
    assert job["Reason"] == "image_differs"
    assert agent.get(f"/images/{id}").json()["status"] == "complete"


def test_an_image_is_deleted_only_when_no_guest_stands_on_it(agent: AgentProcess) -> None:
    guest = agent.running_guest()
    refused = agent.delete(f"/images/{guest['image']}")
    assert refused.status_code == 409
    assert refused.json()["reason"] == "image_in_use"
    assert guest["id"] in refused.json()["message"]
    agent.done(agent.post(f"/guests/{guest['id']}/delete"))
    assert agent.delete(f"/images/{guest['image']}").json()["id"] == guest["image"]
    assert agent.get(f"/images/{guest['image']}").status_code == 404
    assert agent.delete(f"/images/{guest['image']}").status_code == 404
    assert nothing_is_left(agent, guest["image"])


def test_a_transfer_that_breaks_off_goes_on_where_it_was(agent: AgentProcess, web: WebServer) -> None:
    web.content, web.tag, web.break_off = bytes(range(256)) * 16384, '"v1"', 2
    web.release.set()
    id = new_id()
    agent.done(agent.post("/images", {"id": id, "source": web.url}))
    whole = len(web.content)
    assert web.ranges == ["", f"bytes={whole // 2}-", f"bytes={whole * 3 // 4}-"]
    assert (agent.image_dir / id / "disk.raw").read_bytes() == web.content


def test_a_file_that_changed_meanwhile_is_taken_from_the_beginning(agent: AgentProcess, web: WebServer) -> None:
    web.content, web.tag, web.break_off, id = bytes(MB), '"v1"', 1, new_id()
    job = agent.post("/images", {"id": id, "source": web.url})
    part = agent.image_dir / f"{id}.partial-fetch" / "source"
    wait_until(part.exists, limit_s=10, what="answer of the server")
    other = bytes(range(256)) * 4096
    web.content, web.tag = other, '"v2"'
    web.release.set()
    agent.done(job)
    assert len(web.requests) == 2
    assert (agent.image_dir / id / "disk.raw").read_bytes() == other


def test_the_next_fetch_goes_on_with_what_is_here_under_a_checksum(agent: AgentProcess, web: WebServer) -> None:
    web.content = bytes(range(256)) * 4096
    web.release.set()
    request = {"id": new_id(), "source": web.url, "sha256": hashlib.sha256(web.content).hexdigest()}
    part = agent.image_dir / f"{request['id']}.partial-fetch"
    part.mkdir()
    (part / "source").write_bytes(web.content[:1000])
    web.tag = '"v1"'
    agent.done(agent.post("/images", request))
    assert web.ranges == ["bytes=1000-"]
    assert (agent.image_dir / request["id"] / "disk.raw").read_bytes() == web.content
    assert not part.exists()


@pytest.mark.parametrize("tag", ["", '"v1"'])
def test_a_part_of_something_else_costs_a_second_transfer_and_no_more(
    agent: AgentProcess, web: WebServer, tag: str
) -> None:
    web.content, web.tag = bytes(range(256)) * 4096, tag
    web.release.set()
    request = {"id": new_id(), "source": web.url, "sha256": hashlib.sha256(web.content).hexdigest()}
    part = agent.image_dir / f"{request['id']}.partial-fetch"
    part.mkdir()
    (part / "source").write_bytes(b"x" * 1000)
    agent.done(agent.post("/images", request))
    assert len(web.requests) == (2 if tag else 1)
    assert (agent.image_dir / request["id"] / "disk.raw").read_bytes() == web.content


def packed(content: bytes, how: str) -> bytes:
    return gzip.compress(content) if how == "gzip" else zstandard.ZstdCompressor(write_checksum=True).compress(content)


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_a_compressed_image_is_unpacked(agent: AgentProcess, tmp_path: Path, how: str) -> None:
    disk = qcow2(tmp_path / "image.qcow2")
    content = packed(disk, how)
    checksum, id = hashlib.sha256(content).hexdigest(), new_id()
    request = {"id": id, "source": agent.source("packed", content), "sha256": checksum, "size": len(content)}
    agent.done(agent.post("/images", request))
    assert {path.name for path in (agent.image_dir / id).iterdir()} == {"disk.qcow2", "image.json"}
    assert (agent.image_dir / id / "disk.qcow2").read_bytes() == disk
    shown = agent.get(f"/images/{id}").json()
    assert (shown["sha256"], shown["size"], shown["format"]) == (checksum, len(disk), "qcow2")
    assert "is here already" in agent.done(agent.post("/images", request))["Message"]


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_a_compressed_raw_image_keeps_its_holes(agent: AgentProcess, how: str) -> None:
    content, id = bytes(9 * MB) + b"end" + bytes(MB), new_id()
    agent.done(agent.post("/images", {"id": id, "source": agent.source("raw", packed(content, how))}))
    disk = agent.image_dir / id / "disk.raw"
    assert disk.read_bytes() == content
    assert disk.stat().st_blocks * 512 < 3 * MB


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_a_small_file_does_not_become_a_large_one(agent: AgentProcess, how: str) -> None:
    id, content = new_id(), packed(bytes(65 * MB), how)
    job = agent.refused(agent.post("/images", {"id": id, "source": agent.source("bomb", content)}))
    assert "67108864 bytes" in job["Message"]
    assert nothing_is_left(agent, id)


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_a_damaged_archive_is_refused(agent: AgentProcess, how: str) -> None:
    id, content = new_id(), packed(bytes(range(256)) * 4096, how)
    half = len(content) // 2
    for damaged in (content[:half], content[:half] + bytes([content[half] ^ 255]) + content[half + 1 :]):
        job = agent.refused(agent.post("/images", {"id": id, "source": agent.source("damaged", damaged)}))
        assert job["Reason"] == "invalid"
        assert nothing_is_left(agent, id)


def test_a_wrong_size_is_refused(agent: AgentProcess) -> None:
    id = new_id()
    job = agent.refused(agent.post("/images", {"id": id, "source": agent.source("s", b"content"), "size": 8}))
    assert "has 7 bytes, wanted 8" in job["Message"]
    assert nothing_is_left(agent, id)


def test_two_who_want_different_files_under_one_id_are_told(agent: AgentProcess, web: WebServer) -> None:
    web.content, id = bytes(MB), new_id()
    first = agent.post("/images", {"id": id, "source": f"{web.url}/a"})
    second = agent.post("/images", {"id": id, "source": f"{web.url}/b"})
    web.release.set()
    agent.done(first)
    assert agent.refused(second)["Reason"] == "image_differs"


def test_a_full_disk_fails_the_fetch_and_is_left_as_it_was(tmp_path: Path) -> None:
    """On 16 MB of its own: an image that is too large, one that is only after unpacking, and one that fits."""
    assert Machine.available() is None, Machine.available()
    with Machine(tmp_path / "machine", "host") as machine:
        small = tmp_path / "small"
        small.mkdir()
        machine.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", small])
        (small / "images").mkdir()
        limits = "FetchLimits([Path(sys.argv[2])], 1 << 30, 60.0)"
        script = f"""
import sys
from pathlib import Path
from lochness.clock import SystemClock
from lochness.errors import LochnessError
from lochness_node.agent.images.cache import ImageCache
from lochness_node.agent.images.download import FetchLimits
from lochness_node.agent.wire import ImageRequest
cache = ImageCache(Path(sys.argv[1]), SystemClock(), {limits}, lambda _: ())
cache.prepare()
for number, source in enumerate(sys.argv[3:]):
    request = ImageRequest(id=f"0000000{{number}}-0000-4000-8000-000000000000", source=source)
    try:
        print("fetched", cache.fetch(request, lambda _: None))
    except LochnessError as error:
        print(error.reason, [path.name for path in Path(sys.argv[1]).iterdir()])
"""
        large, bomb, fits = (tmp_path / name for name in ("large", "bomb", "fits"))
        large.write_bytes(bytes(20 * MB))
        bomb.write_bytes(packed(bytes(range(256)) * (20 * MB // 256), "gzip"))
        fits.write_bytes(b"fits")
        sources = [f"file://{path}" for path in (large, bomb, fits)]
        done = machine.run([sys.executable, "-c", script, small / "images", tmp_path, *sources], cwd=Path.cwd())
        lines = done.stdout.splitlines()
        assert lines[:2] == ["disk_full []", "disk_full []"], done.stdout + done.stderr
        assert lines[2].startswith("fetched")


def test_a_full_disk_below_a_guest_is_said_and_nothing_half_made_stays(tmp_path: Path) -> None:
    """On 64 kB of its own, too little for an empty qcow2 file and for a seed; then on enough."""
    assert Machine.available() is None, Machine.available()
    with Machine(tmp_path / "machine", "host") as machine:
        small = tmp_path / "small"
        small.mkdir()
        machine.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small])
        script = """
import sys
from pathlib import Path
from lochness.errors import LochnessError
from lochness_node.agent.guests.disks import make_disk
from lochness_node.agent.guests.iso import write_seed
from lochness_node.agent.guests.plan import DiskPlan
from lochness_node.agent.guests.seed import Seed
small = Path(sys.argv[1])
for make in (
    lambda: make_disk(DiskPlan(small / "vda.qcow2", "qcow2", 8, None)),
    lambda: write_seed(small / "seed.iso", Seed("{}", "{}", "x" * 99999)),
):
    try:
        make()
        print("made", [path.name for path in small.iterdir()])
    except (LochnessError, OSError) as error:
        print(getattr(error, "message", error), [path.name for path in small.iterdir()])
"""
        outputs = []
        for size in ("64k", "4m"):
            machine.run(["mount", "-o", f"remount,size={size}", small])
            outputs += machine.run([sys.executable, "-c", script, small], cwd=Path.cwd()).stdout.splitlines()
        assert all("No space left on device" in line and line.endswith(" []") for line in outputs[:2]), outputs
        assert [line.partition(" ")[0] for line in outputs[2:]] == ["made", "made"], outputs
