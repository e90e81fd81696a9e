"""Where rows live: which shard owns a slot, how it is reached, and how a slot moves.

The shard's own slot table is the truth. What an instance believes is only where it asks first; a
shard that does not own a slot any more says where it went, and the item follows.
"""
