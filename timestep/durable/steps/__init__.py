"""The kinds of steps, one file a kind, and the retries and limits inside them.

Each file replaces one place of the SDK where an effect happens. What all kinds share belongs in `journal/`.
"""
