"""Streams in asyncio."""

import asyncio
from typing import Any, AsyncIterator

from ._wsd import Stream
from .records import Answer


class AsyncItems(AsyncIterator[Any]):
    """The items of a stream as an asynchronous iterator.

    Another thread waits for the items, so the event loop goes on meanwhile. Cancelling the task that
    waits, or dropping the iterator, ends the answer.
    """

    def __init__(self, stream: "Stream[Any]") -> None:
        # An iterator that cannot begin, as a second one of a stream, must not end the answer of the first.
        self._ended = True
        self._stream = stream
        self._items: "asyncio.Queue[Any]" = asyncio.Queue()
        # The thread must not keep this object alive, whose end is the end of the answer.
        loop, items = asyncio.get_running_loop(), self._items
        stream._deliver(lambda item: loop.call_soon_threadsafe(items.put_nowait, item))
        self._ended = False

    def __aiter__(self) -> "AsyncItems":
        return self

    async def __anext__(self) -> Any:
        if self._ended:
            raise StopAsyncIteration
        try:
            item = await self._items.get()
        except asyncio.CancelledError:
            self._stream.close()
            raise
        self._ended = item is None or isinstance(item, Exception)
        if item is None:
            raise StopAsyncIteration
        if isinstance(item, Exception):
            raise item
        return item

    def __del__(self) -> None:
        if not self._ended:
            self._stream.close()


async def collect(stream: "Stream[Any]") -> Answer:
    """Reads a stream to its end and returns the whole answer.

    Raises `asyncio.CancelledError` if the stream is closed meanwhile.
    """
    async for _ in AsyncItems(stream):
        pass
    if stream.answer is None:
        raise asyncio.CancelledError("the stream was closed before its end")
    return stream.answer
