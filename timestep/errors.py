"""Every error that Timestep raises.

```
TimestepError
├── SettingsError                 a setting is missing, malformed or contradicts another
├── EmbeddedPostgresError         the embedded server cannot be started or used
├── DatabaseNotReadyError         no database answers, or its schema is older or newer than this code
├── InvalidInputError             what the caller passed in is refused at the door
│   ├── InvalidRunIdError
│   ├── AgentNotRegisteredError
│   ├── AgentAlreadyRegisteredError
│   ├── NotDurableError           a parameter that could not be found again after a crash
│   └── RunInputMismatchError     a known run id with another input
├── RunNotFoundError
├── RunStateError                 a run is not in a state that allows the verb
├── RunFailedError                a run failed with an error whose class could not be rebuilt
├── RunCancelledError
│   └── RunTimedOutError
├── InterruptionException         a run waits for a person
├── ExecutorIdInUseError          another live process holds this executor id
├── ExecutorFencedError           this process was taken over and must not write any more
├── HistoryChangedError           the recorded steps do not fit the code that replays them
├── ToolResultError               a tool returned what cannot be stored
│   └── ResultTooLargeError
├── JournalFormatError            a stored value is not JSON written by Timestep
├── IncompleteModelResponseError  the model's stream ended before its answer did
└── UnsupportedError              asked for on purpose, not supported on purpose
```

The message says what happened and names the value; `hint` says what to do next; `retryable` says whether the
same call may succeed later without a change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class TimestepError(Exception):
    """Something in Timestep went wrong."""

    hint: str = "Run `timestep doctor` to see every setting and what is wrong."
    retryable: bool = False

    def __init__(self, message: str | None = None, *, hint: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or type(self).__name__).splitlines()[0]
        if hint is not None:
            self.hint = hint
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _rebuild, (type(self), self.message, dict(self.__dict__))


def _rebuild(kind: type[TimestepError], message: str, fields: dict[str, Any]) -> TimestepError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.__dict__.update(fields)
    return error


class SettingsError(TimestepError):
    """A setting is missing, malformed or contradicts another."""


class EmbeddedPostgresError(TimestepError):
    """The embedded Postgres server cannot be started or used."""

    hint = "Set PG_CONNECTION_URI to use a Postgres server of your own."


class DatabaseNotReadyError(TimestepError):
    """The database does not answer, or its schema does not fit this version."""

    hint = "Run `timestep db migrate`."
    retryable = True


class InvalidInputError(TimestepError):
    """The input is not valid."""

    hint = "Correct the value and call again; nothing was stored."


class InvalidRunIdError(InvalidInputError):
    """The run id is not usable."""


class AgentNotRegisteredError(InvalidInputError):
    """No agent of that name is registered in this process."""

    hint = "Call `register_agents(...)` before the run starts."


class AgentAlreadyRegisteredError(InvalidInputError):
    """Another agent is registered under that name."""

    hint = "Give the agents different names, or pass `replace=True` to replace the registered one."


class NotDurableError(InvalidInputError):
    """The parameter could not be found again after a crash."""


class RunInputMismatchError(InvalidInputError):
    """The run id is known with another input."""

    hint = "Use a new id for new work; the same id returns the recorded result of the first input."


class RunNotFoundError(TimestepError):
    """There is no such run."""

    hint = "List the runs with `timestep runs list`."


class RunStateError(TimestepError):
    """The run is not in a state that allows this."""


class RunFailedError(TimestepError):
    """The run failed."""

    hint = "Look at the run with `timestep runs show ID`; continue it with `timestep runs resume ID`."


class RunCancelledError(TimestepError):
    """The run was cancelled."""

    hint = "Continue the run from its last finished step with `timestep runs resume ID`."

    def __init__(self, message: str | None = None, *, hint: str | None = None, run_id: str = "") -> None:
        super().__init__(message, hint=hint)
        self.run_id = run_id


class RunTimedOutError(RunCancelledError):
    """The run reached its time limit."""

    hint = "Continue the run from its last finished step with `timestep runs resume ID`."


class InterruptionException(TimestepError):
    """The run waits for a person."""

    hint = "Decide what `interruptions` names, then continue the run."

    def __init__(
        self,
        message: str | None = None,
        *,
        hint: str | None = None,
        run_id: str = "",
        interruptions: Sequence[object] = (),
    ) -> None:
        super().__init__(message, hint=hint)
        self.run_id = run_id
        self.interruptions = list(interruptions)


class ExecutorIdInUseError(TimestepError):
    """Another live process holds this executor id."""

    hint = "Leave `executor_id` unset to get a unique one, or stop the other process."


class ExecutorFencedError(TimestepError):
    """This executor was taken over by another one and has stopped."""

    hint = "Nothing to do: its runs go on elsewhere. Start the process again to get a new executor id."


class HistoryChangedError(TimestepError):
    """The recorded steps of the run do not fit the code that replays them."""

    hint = "Deploy the code that started the run, or start the work again under a new id."


class ToolResultError(TimestepError):
    """A tool returned a value that cannot be stored as JSON."""

    hint = "Return JSON-able data, or register a serializer for the type with `register_serializer`."


class ResultTooLargeError(ToolResultError):
    """A result is larger than the limit for one step."""

    hint = "Store the data elsewhere and return a reference, or raise TIMESTEP_MAX_RESULT_BYTES."


class JournalFormatError(TimestepError):
    """A stored value is not JSON written by Timestep."""

    hint = "The row was written by another program or as a pickle; it is refused, never loaded."


class IncompleteModelResponseError(TimestepError):
    """The model's stream ended before its answer did."""

    hint = "The provider cut the answer. The call may be made again."
    retryable = True


class UnsupportedError(TimestepError):
    """This is not supported."""
