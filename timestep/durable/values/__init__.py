"""Values as JSON that another process turns back into equal ones: what tools return, contexts, final outputs.

Nothing here knows steps or runs. What a step records of a value belongs in `journal/` and `steps/`.
"""
