"""Grants of uploads and downloads, quotas and retention of encrypted files.

The files lie in a store that speaks S3; devices bring and fetch them there themselves. The service
sees no byte of them, and asks no address but the store's.
"""
