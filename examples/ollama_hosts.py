"""Several hosts by prefix: a laptop, a machine with a GPU, a llama.cpp or vLLM server. Names say where a model runs.

Run it with `python examples/ollama_hosts.py`.
"""

from __future__ import annotations

import asyncio

from agents import Agent
from model_server import model_server

from timestep import (
    MultiModelProvider,
    MultiModelProviderMap,
    OllamaModelProvider,
    OpenAICompatibleProvider,
    run_agent_workflow,
    set_default_model_provider,
)

agents = [
    Agent(name="drafter", model="laptop/llama3.2"),
    Agent(name="editor", model="gpu/hf.co/unsloth/gpt-oss-120b:Q4"),  # only the first / splits
    Agent(name="judge", model="lab/qwen3-32b"),
]


async def main() -> None:
    for agent in agents:
        result = await run_agent_workflow(agent=agent, input_items="Hello")
        print(f"{agent.name}: {result.output}")


if __name__ == "__main__":
    with model_server("the laptop") as laptop, model_server("the GPU") as gpu, model_server("the lab") as lab:
        providers = MultiModelProviderMap()
        providers.add_provider("laptop", OllamaModelProvider(base_url=laptop))
        providers.add_provider("gpu", OllamaModelProvider(base_url=gpu))
        providers.add_provider("lab", OpenAICompatibleProvider(f"{lab}/v1"))
        set_default_model_provider(MultiModelProvider(providers))
        asyncio.run(main())
