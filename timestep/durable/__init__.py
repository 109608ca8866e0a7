"""The engine: runs of Agents SDK agents as chains of DBOS workflows.

The only room that knows both DBOS and the Agents SDK. Follow one run: `start.py` starts it,
`workflow.py` is the segment, `run.py` drives the SDK's Runner, `model_turn.py` and `tool_call.py` are the steps,
`close.py` ends the segment in one transaction, `result.py` is what the caller gets.
"""
