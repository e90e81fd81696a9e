"""Who is online, who was last seen when, who writes where, and who is watching whom.

Owner of: presence, in Redis with an expiry, and the watches of people with a chat open, in memory.
Promise: what changes is told at once to those who have the chat open and may see it, and to nobody
else; a person whom nobody watches costs the heartbeat, and nothing more.
Failure: all of it is a hint. A flush of Redis, or the death of an instance, is made good by the
gateways' next heartbeat, within 30 s; messages never wait for it.
"""
