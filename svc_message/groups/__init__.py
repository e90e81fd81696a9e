"""Groups: who is in them, what they may do, and how one message reaches all their members.

A group's rows live in the slot of its id. Every change makes the next revision, under the group's
lock; who gets a message is decided by the revision at which it was accepted, and by nothing later.
"""
