"""Accounts, their devices and their tokens.

Owns the rule who is who: an account is made by a signed request, a handle has one account, a token
names a linked device. It sends nothing and knows no conversation. An account row is written before
its handle is claimed, so that a crash leaves at worst an account that nobody can find, which a
sweep removes.
"""
