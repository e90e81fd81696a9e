"""svc_message owns everything durable about messaging: accounts, conversations, queues, receipts.

It promises docs/contract.md, rows 1 to 8: what it has acknowledged is committed on a shard first.
It holds no state that a second instance must know of; any instance may serve any slot, and the
shards' functions keep them in order. When a shard is away, its slots are refused with a time to
retry, and the others go on.
"""
