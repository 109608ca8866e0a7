"""Tools for agents that come with Timestep.

Each is an ordinary tool of the Agents SDK and also works in a plain `Runner.run`. How a tool call becomes a step
belongs in `durable/steps/`.
"""
