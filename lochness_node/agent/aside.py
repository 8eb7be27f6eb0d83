"""How does an asynchronous handler call something that blocks?

1. The event loop never waits for it.
2. The thread is a daemon: a call that hangs holds up neither the loop nor the end of the process.

Not guaranteed: a limit of its own; the server bounds how many requests there are at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")


async def aside(function: Callable[[], Answer]) -> Answer:
    """What `function` answers or raises, run on a thread of its own with the context of the caller."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Answer] = loop.create_future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            answer = context.run(function)
        except BaseException as error:  # raised again by the one who waits
            _deliver(loop, _fail, done, error)
        else:
            _deliver(loop, _succeed, done, answer)

    threading.Thread(target=run, name="aside", daemon=True).start()
    return await done


def _deliver(loop: asyncio.AbstractEventLoop, how: Callable[..., None], *values: object) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended; nobody waits any more
        loop.call_soon_threadsafe(how, *values)


def _succeed(done: asyncio.Future[Answer], answer: Answer) -> None:
    if not done.done():
        done.set_result(answer)


def _fail(done: asyncio.Future[Answer], error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)
