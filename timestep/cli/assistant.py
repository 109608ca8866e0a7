"""The agent of `timestep run TEXT --model NAME` where there is no other: a model with nothing around it."""

from __future__ import annotations

from agents import Agent

assistant = Agent(name="assistant", instructions="You are a helpful assistant.")
