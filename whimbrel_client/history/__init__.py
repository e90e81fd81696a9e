"""History: what was said before a device was linked moves to it from the primary, if it offers it.

The new device asks for a part, keeps it, and asks for the next in the same transaction: whatever
dies, and whatever comes twice, it goes on at the first part that is not kept. Parts travel as
content between own devices, encrypted as any other message. An archive of many gigabytes would go
as a file through the media service instead; that is not built.
"""
