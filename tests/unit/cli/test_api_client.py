"""The controller's client: every way in which the other side can misbehave has one error and a limit."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import pytest

from lochness.api_client import ApiClient
from lochness.api_connection import RefusedError, UnexpectedAnswerError
from lochness.errors import AmbiguousWriteError, DeadlineError, UnavailableError
from tests.unit.cli.fake_controller import JOB_ID, FakeController, answering, free_port, hang_up, http

LIMIT_S = 0.4


def client_of(url: str) -> ApiClient:
    return ApiClient(url, timeout_s=LIMIT_S)


def stay_silent(connection: socket.socket) -> bool:
    return True


def drip(connection: socket.socket) -> bool:
    """A byte at a time, each well within the limit of a single read."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    connection.settimeout(LIMIT_S / 8)
    deadline_s = time.monotonic() + 20 * LIMIT_S
    while time.monotonic() < deadline_s:
        connection.sendall(b"1\r\n \r\n")
        try:
            if connection.recv(1) == b"":
                break
        except TimeoutError:
            continue
    return True


def test_a_silent_server_is_unavailable_for_a_read_and_ambiguous_for_a_write():
    with answering(stay_silent) as url, client_of(url) as client:
        with pytest.raises(UnavailableError, match=r"does not answer GET /guests: no answer within 0\.4 s"):
            client.records("/guests")
        with pytest.raises(AmbiguousWriteError, match="may have been done"):
            client.accept("POST", "/guests", {})


def test_a_change_whose_answer_is_lost_is_asked_for_once_more_with_its_key():
    answers = [hang_up, http(b'{"id": "x"}')]
    asked: list[bytes] = []

    def next_answer(connection: socket.socket) -> None:
        answers.pop(0)(connection)

    with answering(next_answer, asked) as url, ApiClient(url, timeout_s=20) as client:
        assert client.create("/networks", {}) == {"id": "x"}
    keys = [line for head in asked for line in head.split(b"\r\n") if line.startswith(b"Idempotency-Key: ")]
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_a_controller_that_is_gone_with_the_answer_leaves_it_unknown():
    """Not reached the second time: "nothing changed" would be a lie."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def serve_once() -> None:
        connection, _ = listener.accept()
        listener.close()
        connection.recv(65536)
        connection.close()

    thread = threading.Thread(target=serve_once)
    thread.start()
    with (
        ApiClient(f"http://127.0.0.1:{port}", timeout_s=2) as client,
        pytest.raises(AmbiguousWriteError, match="may have been done"),
    ):
        client.create("/networks", {})
    thread.join()


def test_each_change_has_a_key_of_its_own():
    asked: list[bytes] = []
    with answering(http(b'{"id": "x"}'), asked) as url, ApiClient(url, timeout_s=20) as client:
        client.create("/networks", {})
        client.create("/networks", {})
        client.record("/networks/x")
    keys = [line for head in asked for line in head.split(b"\r\n") if line.startswith(b"Idempotency-Key: ")]
    assert len(set(keys)) == len(keys) == 2


def test_a_server_that_drips_is_left_after_the_limit():
    with answering(drip) as url, client_of(url) as client:
        started_s = time.monotonic()
        with pytest.raises(UnexpectedAnswerError, match=r"was not done answering GET /guests after 0\.4 s"):
            client.records("/guests")
        assert time.monotonic() - started_s < 10 * LIMIT_S


def test_nobody_there_changes_nothing():
    with (
        client_of(f"http://127.0.0.1:{free_port()}") as client,
        pytest.raises(UnavailableError, match="connection refused"),
    ):
        client.accept("POST", "/guests", {})


def test_a_refusal_carries_the_servers_words():
    body = b'{"message": "guest x is on y already", "code": 409, "reason": "already_placed", "id": "x"}\n'
    with (
        answering(http(body, "409 Conflict")) as url,
        client_of(url) as client,
        pytest.raises(RefusedError, match=r"^guest x is on y already$") as refused,
    ):
        client.record("/guests/x")
    assert (refused.value.code, refused.value.reason, refused.value.answer["id"]) == (409, "already_placed", "x")


@pytest.mark.parametrize("body", [b"{}", b'{"message": 5, "reason": []}'])
def test_a_refusal_without_words_gets_some(body: bytes):
    with (
        answering(http(body, "500 Internal Server Error")) as url,
        client_of(url) as client,
        pytest.raises(RefusedError, match=r"^GET /guests/x was answered with HTTP status 500$") as refused,
    ):
        client.record("/guests/x")
    assert refused.value.reason == "http_500"


def test_redirects_are_not_followed_to_strangers():
    response = "301 Moved Permanently\r\nLocation: http://127.0.0.1:9/elsewhere"
    with (
        answering(http(b"", response)) as url,
        client_of(url) as client,
        pytest.raises(UnexpectedAnswerError, match="HTTP status 301"),
    ):
        client.records("/guests")


def test_an_accepted_operation_needs_its_job():
    with (
        answering(http(b'{"id": "x"}', "202 Accepted")) as url,
        client_of(url) as client,
        pytest.raises(UnexpectedAnswerError, match="without the header X-Guest-Job-ID"),
    ):
        client.accept("DELETE", "/guests/x")


def test_following_yields_changes_only(controller: FakeController):
    controller.job_states = [
        {"status": "new"}, {"status": "new"}, {"status": "working"}, {"status": "working"}, {"status": "done"},
    ]  # fmt: skip
    with ApiClient(controller.url) as client:
        assert [job["status"] for job in client.follow_job(JOB_ID, limit_s=20)] == ["new", "working", "done"]


def test_following_ends_at_its_limit(controller: FakeController):
    controller.job_states = [{"status": "working"}]
    with ApiClient(controller.url) as client, pytest.raises(DeadlineError, match=r"within 0\.2 s"):
        list(client.follow_job(JOB_ID, limit_s=0.2))


def test_following_a_controller_that_was_never_there_fails_at_once():
    started_s = time.monotonic()
    with client_of(f"http://127.0.0.1:{free_port()}") as client, pytest.raises(UnavailableError):
        list(client.follow_job(JOB_ID, limit_s=60))
    assert time.monotonic() - started_s < 5


def test_following_outlives_a_restart_of_the_controller():
    answers = [http(b'{"status": "working"}'), hang_up, hang_up, http(b'{"status": "done"}')]

    def next_answer(connection: socket.socket) -> None:
        answers.pop(0)(connection)

    with answering(next_answer) as url, client_of(url) as client:
        assert [job["status"] for job in client.follow_job(JOB_ID, limit_s=20)] == ["working", "done"]
    assert answers == []


def stream(*events: bytes) -> Callable[[socket.socket], None]:
    """Answers with these events and hangs up."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    return lambda connection: connection.sendall(head + b"".join(events))


def test_a_stream_of_events_that_breaks_goes_on_where_it_was():
    told = [
        stream(b'id: 5\nevent: ready\ndata: {"n":1}\n\n', b'id: 6\nevent: guest\ndata: {"n":2}\n\n', b"data: {"),
        hang_up,
        stream(b'id: 7\nevent: guest\ndata: {"n":3}\n\n'),
    ]
    asked: list[bytes] = []

    def next_answer(connection: socket.socket) -> None:
        told.pop(0)(connection)

    with answering(next_answer, asked) as url, client_of(url) as client:
        events = client.events(since=3, kinds="guest", is_following=True)
        assert [next(events).data["n"] for _ in range(3)] == [1, 2, 3]
        events.close()
    assert [b"Last-Event-ID: 6" in request for request in asked] == [False, True, True]
    assert all(request.startswith(b"GET /events?kind=guest&since=3 ") for request in asked)


def test_a_stream_that_ends_is_told_to_who_does_not_follow():
    with answering(stream(b'id: 5\nevent: ready\ndata: {"n":1}\n\n')) as url, client_of(url) as client:
        events = client.events(since=3, kinds="", is_following=False)
        assert next(events).name == "ready"
        with pytest.raises(UnavailableError, match="ended the stream of events"):
            next(events)
