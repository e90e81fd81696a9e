"""Channels: made, followed by their links, posted to and read."""
