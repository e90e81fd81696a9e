"""Groups: who is in them, the keys their messages are encrypted with, and what people do in them.

The order in which a message goes out:
1. It is queued, like any message.
2. What changed in the group is known here (`state`), or it waits until it is (`upkeep`).
3. The sender key has been handed to every member: each hand-out is a queued message of its own, and
   its answer is waited for. One that is refused for now is not: who then lacks the key asks for it.
4. It is encrypted once, in the transaction that moves the key on, for the revision and device epoch
   of then. If the mesh says that these are old, all begins again at 2, under the same id.

The key is made anew once anybody who may have it has left, a person or a device. All steps are rows
of the store: a crash at any point goes on from there.
"""
