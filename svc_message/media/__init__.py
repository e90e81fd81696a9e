"""Tells the media service which objects accepted messages refer to.

A reference is durable before its message is accepted, and goes when the media service has it.
"""
