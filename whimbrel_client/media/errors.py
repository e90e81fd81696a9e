"""What may go wrong with a file."""

from whimbrel_client.errors import ClientError


class FileFailed(ClientError):
    """A file could not be sent or saved."""


class FileChanged(FileFailed):
    """The file changed while it was being sent."""


class FileForged(FileFailed):
    """What the store has is not what was sent; nothing of that came out."""


class RangeUnproved(FileFailed):
    """The message tells nothing that proves a part of its file; all of it can be saved."""


class FileMissing(FileFailed):
    """The message has no file."""


class FileTooLarge(FileFailed):
    """More than 2 GiB."""


class TransferFailed(FileFailed):
    """The store cannot be reached, or does not do what it should; to be tried again later."""
