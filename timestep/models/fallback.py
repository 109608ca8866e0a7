"""A model that has others to fall back on."""

from __future__ import annotations

from collections.abc import Sequence

from agents import Model, ModelProvider

from timestep.models.model_chain import ModelChain
from timestep.models.multi_model import default_model_provider


class FallbackModel(ModelChain):
    """Models of which the next one answers when one fails, in the order in which they are given.

    A model has failed when its error may pass and its retries are over, and when it misbehaved: a ModelBehaviorError,
    a call of a tool that there is not, an output that does not fit its schema. The last one's failure is the caller's.
    In a durable run the retries are those of the engine, for each model anew, and all of it is one step.

    Args:
        models: Names of models, or models.
        on: The errors on which the next one answers, instead of those above.
        provider: What finds the models of the names; the default provider when absent.

    Raises:
        ModelNotConfiguredError: a name is empty, or there are fewer than two. It is a ValueError too.
    """

    def __init__(
        self,
        *models: str | Model,
        on: Sequence[type[Exception]] | None = None,
        provider: ModelProvider | None = None,
    ) -> None:
        def find(name: str) -> Model:
            return (provider if provider is not None else default_model_provider()).get_model(name)

        super().__init__(*models, on=on, find=find)
