"""What one process holds and shares: the engine, registered agents, the steps that are running, who waits for what.

Nothing here is stored or replayed. What belongs to one run is in `segment/`, and what a step records is in `journal/`.
"""
