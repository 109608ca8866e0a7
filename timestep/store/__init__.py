"""Postgres, schema `timestep`: one file a table group, one function a need.

Every function takes a `sqlalchemy.Connection` first and works inside the caller's transaction;
`Database` opens one.
"""
