"""Snapshots: their envelope, and the translation between the SDKs."""
