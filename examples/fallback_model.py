"""A model that is down has another to fall back on; which one answered is recorded with the step.

Run it with `python examples/fallback_model.py`.
"""

from __future__ import annotations

import asyncio

from agents import Agent, ModelRetrySettings, ModelSettings
from model_server import model_server

from timestep import (
    MultiModelProvider,
    MultiModelProviderMap,
    OllamaModelProvider,
    run_agent_workflow,
    set_default_model_provider,
)

# After its retries the first one's failure is not the run's: the second one is asked, in the same step.
agent = Agent(
    name="assistant",
    model="cloud/gpt-oss:120b|local/gpt-oss:20b",
    model_settings=ModelSettings(retry=ModelRetrySettings(max_retries=1)),
)


async def main() -> None:
    result = await run_agent_workflow(agent=agent, input_items="Hello")
    print(result.output)
    again = await run_agent_workflow(agent=agent, input_items="Hello", workflow_id=result.run_id)
    print(f"again: {again.output}")
    print(f"requests: {again.usage.requests}, of which one was answered")


if __name__ == "__main__":
    with model_server("the cloud", is_down=True) as cloud, model_server("this machine") as local:
        providers = MultiModelProviderMap()
        providers.add_provider("cloud", OllamaModelProvider(base_url=cloud))
        providers.add_provider("local", OllamaModelProvider(base_url=local))
        set_default_model_provider(MultiModelProvider(providers))
        asyncio.run(main())
