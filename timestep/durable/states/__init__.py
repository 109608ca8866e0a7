"""A saved `RunState`: where it comes from, its context and output, the decisions on it, and who may resume it.

Everything here works on states and rows alone and starts no step. Which file or table holds a state is in `store/` and
`run_state/`.
"""
