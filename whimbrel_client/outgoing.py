"""The own messages that the application holds: each is told how it ended."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from weakref import WeakValueDictionary

from whimbrel.content.v1.content_pb2 import Content
from whimbrel_client.errors import BodyTooLarge, NotTheAuthor
from whimbrel_client.kept import Queued, queued_of
from whimbrel_client.model import Outcome, OutgoingMessage
from whimbrel_client.payload import MAX_CONTENT_BYTES, kind_of
from whimbrel_client.store import Store
from whimbrel_client.sync import Sending


class Outgoing:
    """Queues messages, and remembers those that somebody still looks at."""

    def __init__(
        self, store: Store, *, own: bytes, offer: Callable[[Iterable[Sending]], None]
    ) -> None:
        self._store = store
        self._own = own
        self._offer = offer
        self._known: WeakValueDictionary[int, OutgoingMessage] = WeakValueDictionary()
        self._waiters: dict[int, asyncio.Future[None]] = {}

    async def queue(self, user_id: bytes, contents: Iterable[Content]) -> list[OutgoingMessage]:
        """Keep the messages, all or none, and offer them to the stream.

        Raises BodyTooLarge and NotTheAuthor.
        """
        queue = [self._queued(user_id, content) for content in contents]
        messages: list[OutgoingMessage] = []
        local_ids = self._store.queue(queue)
        # In a callback, not after the await: the order of the queue is the order of the store, and
        # what is in the store goes out even if the caller is cancelled now.
        local_ids.add_done_callback(lambda done: messages.extend(self._offered(done, queue)))
        await asyncio.shield(local_ids)
        return messages

    def known(self, message: OutgoingMessage) -> OutgoingMessage:
        """The one object of this message that is alive, so that its outcome reaches all."""
        message.author = self._own
        alive = self._known.setdefault(message.local_id, message)
        alive.content, alive.mark = message.content, message.mark
        return alive

    def settled(self, local_id: int, outcome: Outcome) -> None:
        """The message has ended: tell whoever holds it, wake whoever waits for it."""
        message = self._known.get(local_id)
        if message is not None:
            message.outcome = outcome
        waiter = self._waiters.pop(local_id, None)
        if waiter is not None:
            waiter.set_result(None)

    async def change(self, message: OutgoingMessage) -> None:
        """Return when the message is settled, or nobody will tell any more."""
        waiter = self._waiters.get(message.local_id)
        if waiter is None:
            waiter = self._waiters[message.local_id] = asyncio.get_running_loop().create_future()
        await asyncio.shield(waiter)

    def ended(self) -> None:
        """Nothing will be settled any more."""
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters.values():
            waiter.set_result(None)

    def _offered(
        self, local_ids: asyncio.Future[list[int]], queue: Sequence[Queued]
    ) -> list[OutgoingMessage]:
        """Hand what is in the store to the stream; the messages are known before any answer."""
        if local_ids.cancelled() or local_ids.exception() is not None:
            return []
        pairs = list(zip(local_ids.result(), queue, strict=True))
        messages = [self.known(_message(local_id, queued)) for local_id, queued in pairs]
        self._offer(
            Sending(local_id, queued.conversation, queued.client_message_id)
            for local_id, queued in pairs
        )
        return messages

    def _queued(self, user_id: bytes, content: Content) -> Queued:
        queued = queued_of(user_id, content)
        size = len(queued.content)
        if size > MAX_CONTENT_BYTES:
            raise BodyTooLarge(f"a message has at most {MAX_CONTENT_BYTES} bytes, this has {size}")
        if self._own != _author_of_target(content, self._own):
            raise NotTheAuthor("only its author may change a message")
        return queued


def _author_of_target(content: Content, own: bytes) -> bytes:
    """Whose message it changes; the own account if it changes none."""
    match kind_of(content):
        case "edit":
            return content.edit.target.author
        case "delete":
            return content.delete.target.author
        case _:
            return own


def _message(local_id: int, queued: Queued) -> OutgoingMessage:
    client_message_id = queued.client_message_id
    content = Content.FromString(queued.content)
    return OutgoingMessage(
        local_id, queued.conversation, client_message_id=client_message_id, content=content
    )
