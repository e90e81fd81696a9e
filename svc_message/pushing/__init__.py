"""Finds the devices that have something waiting and no session, and tells the push service.

Where the router finds no session is where a wake-up begins; a sweep over the device rows finds what
was forgotten on the way. None of it ever delays a message.
"""
