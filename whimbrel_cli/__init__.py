"""The `whimbrel` command: bringing a mesh up, talking through it, measuring it.

It is an application of the SDK and a supervisor of the services, and no service knows of it.
"""
