"""The engine: runs of Agents SDK agents as chains of DBOS workflows; the only room that knows both.

The files here are what a program calls. How a run executes is one folder down: `segment/`, then `steps/`, `journal/`,
`states/`, `process/` and `seams/`, each of which imports only from those after it.
"""
