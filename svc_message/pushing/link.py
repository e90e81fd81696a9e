"""What the push service is told: news of devices, until it has made them durable."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import grpc

from svc_message.pushing.news import AnyNews, Connected, News, Wake
from whimbrel.push.v1 import push_pb2, push_pb2_grpc


class NewsFeed:
    """Tells news, as Feed says."""

    service = "push"

    def __init__(self, news: News) -> None:
        self._news = news

    def open(self, channel: grpc.aio.Channel) -> Any:
        return push_pb2_grpc.PushServiceStub(channel).Attach()

    def batches(self) -> AsyncGenerator[Sequence[AnyNews], None]:
        return self._news.batches()

    def request(self, batch: Sequence[AnyNews]) -> push_pb2.AttachRequest:
        return push_pb2.AttachRequest(news=[_news(number, one) for number, one in enumerate(batch)])

    async def answered(
        self, batch: Sequence[AnyNews], answer: push_pb2.AttachResponse
    ) -> Sequence[AnyNews] | None:
        done = set(answer.done)
        return [one for number, one in enumerate(batch) if number not in done] or None


def _news(number: int, one: AnyNews) -> push_pb2.News:
    told = push_pb2.News(id=number, user_id=one.device[0], device_id=one.device[1])
    if isinstance(one, Wake):
        told.wake.epoch, told.wake.acked_pos, told.wake.urgent = (
            one.epoch,
            one.acked_pos,
            one.is_urgent,
        )
        told.wake.SetInParent()
    elif isinstance(one, Connected):
        told.connected.epoch = one.epoch
    else:
        told.unlinked.at.FromDatetime(one.at)
    return told
