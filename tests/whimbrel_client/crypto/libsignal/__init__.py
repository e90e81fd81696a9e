"""The real libsignal as a child process: installed from npm, driven by JSON lines.

It is AGPL, and so stays a program of its own that only tests start; nothing of it is imported.
"""
