"""`whimbrel chat` on a terminal: conversations, bubbles and ticks, from what the SDK tells."""
