"""What may go wrong with channels beside CallFailed and Unreachable."""

from whimbrel_client.errors import ClientError


class ChannelLinkInvalid(ClientError):
    """The text is no link of a channel, or its key is not the channel's any more."""


class ChannelUnknown(ClientError):
    """This account does not follow the channel."""


class ChannelKeyLacking(ClientError):
    """The channel has another key since; its new link brings it."""


class PostTooLarge(ClientError):
    """More than one post may carry."""
