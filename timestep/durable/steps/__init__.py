"""The kinds of steps, one file a kind, and the retries and limits inside them.

Each file replaces the places of the SDK where its effects happen: the runner installs the functions in its `REPLACES`.
What all kinds share belongs in `journal/`.
"""
