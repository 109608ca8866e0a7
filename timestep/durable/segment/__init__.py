"""One segment of a run, from its start to its closing transaction.

Here the SDK's `Runner` is called and its outcome becomes rows. What a program calls to start a run is one folder up.
"""
