"""What a client can do to a connection before anything is asked has an end: heads, trailers, requests ahead."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from lochness_controller.connection import AHEAD_MAX, HEAD_MAX_BYTES
from tests.contract.api.running import Api

LIMIT_S = 30.0
POST = b"POST /networks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
#: Far more than is taken, and what a socket's buffers hold.
MUCH = 64 << 20


@pytest.fixture
def raw(api: Api) -> Iterator[socket.socket]:
    with socket.create_connection((api.base_url.host, api.base_url.port or 80), LIMIT_S) as connection:
        yield connection


def taken(raw: socket.socket, begin: bytes, piece: bytes) -> int:
    """How many bytes are taken of `begin` and `piece`, again and again, until the other side ends it."""
    sent = 0
    try:
        raw.sendall(begin)
        while sent < MUCH:
            raw.sendall(piece)
            sent += len(piece)
    except OSError:
        return sent
    return sent


def received(raw: socket.socket) -> bytes:
    """All that comes until the end."""
    answer = b""
    try:
        while more := raw.recv(1 << 16):
            answer += more
    except ConnectionResetError:
        return answer
    return answer


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"", b"x" * 4096),
        (b"", b"\r\n" * 2048),
        (b"GET /", b"x" * 4096),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"A: b\r\n" * 512),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: ", b"x" * 4096),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"x" * 4096),
        (POST + b"0\r\n", b"A: b\r\n" * 512),
        (POST + b"0\r\nA: ", b"x" * 4096),
        (POST + b"2;", b"x" * 4096),
    ],
)
def test_what_has_no_end_is_cut_off(api, raw, begin, piece):
    assert taken(raw, begin, piece) < MUCH
    assert api.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: %s\r\n\r\n" % (b"x" * HEAD_MAX_BYTES), b"431"),
        (
            b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nA: %s\r\n\r\n" % (b"x" * (HEAD_MAX_BYTES - 100)),
            b"200",
        ),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: %s" % (b"x" * HEAD_MAX_BYTES), b"431"),
        (b"GET /healthz?%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * HEAD_MAX_BYTES), b"431"),
        (b"GET /healthz HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n", b"400"),
        (b"GET /%ff%fe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"404"),
        (b"NONSENSE\r\n\r\n", b"400"),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"404"),
        (b"GET http:// HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"400"),
    ],
)
def test_a_head_is_taken_or_refused(raw, head, status):
    raw.sendall(head)
    assert received(raw).split(b" ", 2)[1] == status


def test_trailers_are_no_headers(raw):
    raw.sendall(POST + b"2\r\n{}\r\n0\r\nX-Request-ID: trailer\r\n\r\n" + GET)
    answer = b""
    while answer.count(b"HTTP/1.1 ") < 2 and (more := raw.recv(1 << 16)):
        answer += more
    assert answer.startswith(b"HTTP/1.1 201")
    assert b"trailer" not in answer
    assert b"HTTP/1.1 200" in answer


def test_requests_come_one_after_the_other_and_some_ahead(raw):
    raw.sendall(GET * (AHEAD_MAX + 1))
    answers = b""
    while answers.count(b"HTTP/1.1 200") < AHEAD_MAX + 1:
        more = raw.recv(1 << 16)
        assert more
        answers += more


def test_who_sends_too_many_ahead_is_cut_off(api, raw):
    raw.sendall(GET * (AHEAD_MAX + 2))
    assert received(raw).count(b"HTTP/1.1 200") <= AHEAD_MAX + 1
    assert api.get("/healthz").status_code == 200


def test_a_body_that_goes_on_after_its_refusal_ends_the_connection(raw):
    head = b"POST /networks HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (MUCH * 2)
    assert taken(raw, head, b"x" * 65536) < MUCH


def test_a_body_that_comes_a_little_later_than_its_refusal_is_dropped(raw):
    raw.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
    refusal = b""
    while b"not_found" not in refusal and (more := raw.recv(1 << 16)):
        refusal += more
    assert refusal.startswith(b"HTTP/1.1 404")
    raw.sendall(b"{}" + GET)
    assert raw.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_another_protocol_is_answered_in_this_one_and_the_connection_ends(raw):
    raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n")
    answer = received(raw)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer
