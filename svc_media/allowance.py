"""How often each account may ask, in the memory of one instance.

An account's calls go to one instance as long as it is there, so that its memory is enough: whoever
is sent to another by its death begins anew.
"""

from collections import OrderedDict
from datetime import timedelta

from mesh.clock import Clock
from svc_media.model import RateLimited

_MOST_ACCOUNTS = 65_536


class Allowance:
    """Token buckets: so many calls at once, then one each `each`."""

    def __init__(self, at_once: int, each: timedelta, clock: Clock) -> None:
        self._each = each.total_seconds()
        self._span = at_once * self._each
        self._clock = clock
        # When the bucket will be full again; the account that was seen last is last.
        self._full_at: OrderedDict[bytes, float] = OrderedDict()

    def take(self, account: bytes) -> None:
        """Take one; raises RateLimited, with the time until there is one."""
        now = self._clock.monotonic()
        full_at = max(self._full_at.get(account, now), now) + self._each
        wait = full_at - self._span - now
        if wait > 0:
            raise RateLimited("too often", retry_after=timedelta(seconds=wait))
        self._full_at[account] = full_at
        self._full_at.move_to_end(account)
        if len(self._full_at) > _MOST_ACCOUNTS:
            self._full_at.popitem(last=False)
