"""Simulators of the push providers: APNs, FCM and a Web Push server, over TLS and HTTP/2.

They enforce the rules that the real ones document, and can be told to answer any of their errors.
"""
