"""Channels: few post, any number of people read.

A post is one row and one frame to each gateway. Whoever is away costs nothing and reads later, from
pages that instances keep in memory.
"""
