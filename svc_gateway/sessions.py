"""Who is connected here, and the second that all their sessions share."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from svc_gateway.ends import SessionTokenExpired
from svc_gateway.session import Phase
from svc_gateway.stream import DeviceStream
from svc_gateway.to_service import Address

_MOST_ENDED = 4096


class Sessions:
    """The open sessions by device, one each, and the streams that a tick concerns.

    A stream that neither waits nor is waited for costs nothing: only watched ones are ticked.
    """

    def __init__(self, *, token_grace: timedelta = timedelta(seconds=60)) -> None:
        self._token_grace = token_grace
        self._by_device: dict[Address, DeviceStream] = {}
        self._ended: dict[Address, tuple[int, str]] = {}  # the newest last
        self._watched: set[DeviceStream] = set()
        self.on_opened: Callable[[DeviceStream], None] = lambda _stream: None

    def __len__(self) -> int:
        return len(self._by_device)

    def __iter__(self) -> Iterator[DeviceStream]:
        return iter([*self._by_device.values()])

    def find(self, address: Address) -> DeviceStream | None:
        return self._by_device.get(address)

    @property
    def staying(self) -> list[DeviceStream]:
        """Those that are not on their way out, the longest open first."""
        return [stream for stream in self if stream.session.phase is Phase.OPEN]

    def opened(self, stream: DeviceStream) -> None:
        """A session was opened; of two of one device the one with the greater epoch stays."""
        ended = self._ended.get(stream.device.address)
        if ended is not None and stream.session.epoch < ended[0]:
            stream.session.end_below(*ended)
            return
        older = self._by_device.get(stream.device.address)
        if older is not None and older.session.epoch > stream.session.epoch:
            stream.session.end_below(older.session.epoch, "STREAM_REPLACED")
            return
        self._by_device.pop(stream.device.address, None)  # the newest last
        self._by_device[stream.device.address] = stream
        if older is not None:
            older.session.end_below(stream.session.epoch, "STREAM_REPLACED")
        self.on_opened(stream)

    def end_below(self, address: Address, epoch: int, reason: str) -> None:
        """Sessions of the device with a lower epoch end, also one that is still being opened."""
        # The opening may have been answered by another instance, whose word comes later.
        self._ended[address] = max(self._ended.pop(address, (0, "")), (epoch, reason))
        if len(self._ended) > _MOST_ENDED:
            del self._ended[next(iter(self._ended))]
        stream = self._by_device.get(address)
        if stream is not None:
            stream.session.end_below(epoch, reason)

    def closed(self, stream: DeviceStream) -> bool:
        """A stream is over; False if its device's session was another one."""
        self._watched.discard(stream)
        if self._by_device.get(stream.device.address) is not stream:
            return False
        del self._by_device[stream.device.address]
        return True

    def watch(self, stream: DeviceStream) -> None:
        """Tick the stream from now on, until it says that it needs no more ticks."""
        self._watched.add(stream)

    def tick(self) -> None:
        """A second has passed."""
        for stream in [*self._watched]:
            if not stream.tick():
                self._watched.discard(stream)

    def end_expired(self, now: datetime) -> None:
        """End the sessions whose tokens are over, and the grace after that too."""
        deadline = now - self._token_grace
        for stream in self:
            if stream.device.expires_at <= deadline:
                stream.session.end(SessionTokenExpired("the token's time is over"))
