"""Wakes devices that are away, through the push services of their platforms.

It owns push tokens and which wake-ups are outstanding. A wake-up is a constant: it says that there
is something, never what, from whom, or how much. Losing one costs a delay, never a message.
"""
