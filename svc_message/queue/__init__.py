"""What has happened and what is due, carried to whoever is to act on it.

Owns the domain events and the wake-ups of fan-out. Promises each entry at least once, in order for
one key. What is due stands in the outbox until it is done: no queue holds the only copy.
"""
