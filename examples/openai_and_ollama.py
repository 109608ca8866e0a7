"""OpenAI and Ollama side by side: the name of an agent's model picks the provider, and nothing else changes.

Run it with `python examples/openai_and_ollama.py`.
"""

from __future__ import annotations

import asyncio

from agents import Agent
from model_server import model_server

from timestep import (
    MultiModelProvider,
    MultiModelProviderMap,
    OllamaModelProvider,
    run_agent,
    run_agent_workflow,
    set_default_model_provider,
)

writer = Agent(name="writer", model="gpt-5.2")
reader = Agent(name="reader", model="ollama/gpt-oss:20b")


async def main() -> None:
    for agent in (writer, reader):
        plain = await run_agent(agent, "Hello")
        print(f"plain    {plain.output}")
        durable = await run_agent_workflow(agent=agent, input_items="Hello")
        print(f"durable  {durable.output}")


if __name__ == "__main__":
    with model_server("OpenAI") as openai, model_server("Ollama") as ollama:
        # With OPENAI_API_KEY set and Ollama on its own port, leave these lines away.
        providers = MultiModelProviderMap()
        providers.add_provider("ollama", OllamaModelProvider(base_url=ollama))
        set_default_model_provider(
            MultiModelProvider(
                providers, openai_api_key="none", openai_base_url=f"{openai}/v1", openai_use_responses=False
            )
        )
        asyncio.run(main())
