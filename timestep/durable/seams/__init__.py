"""Every private name of DBOS and of the Agents SDK, and what stands right on them.

A module here checks each private name that it uses and says which release it needs. Nothing here knows runs, steps or
states: what is done with a seam belongs in the folders above it.
"""
