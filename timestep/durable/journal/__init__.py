"""How an effect becomes a recorded step: its id, its envelope, its values, its events, and how a segment halts.

This is what all kinds of steps have in common. One kind of step, such as a model turn, belongs in `steps/`.
"""
