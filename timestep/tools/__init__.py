"""Tools for agents that come with Timestep."""
