"""The stored form of a `RunState`: its envelope, its file, and what the installed SDK can read.

Nothing here needs the engine or a database. Rows of states are in `store/`, and what an agent makes of a state is in
`durable/states/`.
"""
