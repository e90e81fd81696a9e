"""Encoded events that wait to be written to one stream, which take the fewest frames they can."""

import asyncio


class Outbox:
    """What waits for one stream; whoever puts in keeps it bounded, by `size`.

    Each item is a frame of one event. Frames hold nothing but repeated events, and protobuf joins
    the repeated fields of encodings that stand one after the other: so a frame of many events is
    the concatenation of frames of one.
    """

    __slots__ = ("_frames", "_waiter", "size")

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self.size = 0

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: bytes) -> None:
        self._frames.append(frame)
        self.size += len(frame)
        self.wake()

    def take(self, most_bytes: int) -> bytes:
        """A frame of all that waits, or of as much as fits; at least one event."""
        frames = self._frames
        if self.size <= most_bytes:
            self._frames = []
            self.size = 0
            return frames[0] if len(frames) == 1 else b"".join(frames)
        size, count = len(frames[0]), 1
        while size + len(frames[count]) <= most_bytes:
            size += len(frames[count])
            count += 1
        self._frames = frames[count:]
        self.size -= size
        return b"".join(frames[:count])

    def clear(self) -> None:
        self._frames = []
        self.size = 0

    def wake(self) -> None:
        """Let `wait` return, also when there is nothing to write."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self) -> None:
        """Return when something waits, or somebody calls `wake`."""
        if not self._frames:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
