"""Every error that Timestep raises.

```
TimestepError
├── SettingsError                 a setting is missing, malformed or contradicts another
│   └── ApiKeyMissingError        a service needs a key that is not set; also a ValueError
├── EmbeddedPostgresError         the embedded server cannot be started or used
├── DatabaseNotReadyError         no database answers, or its schema is older or newer than this code
├── InvalidInputError             what the caller passed in is refused at the door
│   ├── InvalidRunIdError
│   ├── AgentNotRegisteredError
│   ├── ConfigurationMissingError
│   ├── AgentAlreadyRegisteredError
│   ├── NotDurableError           a parameter that could not be found again after a crash
│   ├── RunInputMismatchError     a known run id with another input
│   └── RunDuplicatedError        another run has the deduplication id
├── RunNotFoundError
├── QueueNotFoundError
├── QueueNotEmptyError            a queue in which runs wait is not deleted
├── SessionNotFoundError
├── SessionInUseError             a session whose runs have not ended is not deleted
├── RunStateError                 a run is not in a state that allows the verb
├── ScheduleNotFoundError
├── RunFailedError                a run failed with an error whose class could not be rebuilt
├── RunCancelledError
│   └── RunTimedOutError
├── InterruptionException         a run waits for a person
├── ApprovalError                 a decision cannot be taken
│   ├── ApprovalNotFoundError
│   ├── ApprovalAlreadyDecided    somebody was first
│   ├── ApprovalExpiredError      nobody decided in time
│   ├── ApprovalNotWaitingError   its run does not wait for it
│   ├── ApprovalChangedError      the arguments are not those that were shown
│   └── AmbiguousCallError        two open calls of the run have the same call id
├── SnapshotError                 a stored run state cannot be used
│   ├── RunStateNotFoundError     nothing is stored; also a FileNotFoundError
│   ├── SnapshotAlreadyResumed    a snapshot resumes once
│   ├── SnapshotDamagedError      its text is not the one that was stored
│   ├── SnapshotMismatchError     it does not fit the agents of this process
│   └── SnapshotTooLargeError
├── LimitReachedError             a run reached a limit of its budget
├── OutcomeUnknownError           a call was started, and nobody knows whether it happened
├── ExecutorIdInUseError          another live process holds this executor id
├── ExecutorFencedError           this process was taken over and must not write any more
├── HistoryChangedError           the recorded steps do not fit the code that replays them
├── ToolResultError               a tool returned what cannot be stored
│   └── ResultTooLargeError
├── JournalFormatError            a stored value is not JSON written by Timestep
├── IncompleteModelResponseError  the model's stream ended before its answer did
├── ModelNotConfiguredError       no provider for the name of a model, or no key; also a ValueError
├── ModelProviderError            a provider refused a model call, or broke it off
│   ├── ModelNotFoundError        it does not have the model
│   └── ModelServerUnreachableError
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
        self.add_note(f"hint: {self.hint}")  # what a traceback shows below the message

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


class ApiKeyMissingError(SettingsError, ValueError):
    """The key of a service is not set."""

    hint = "Set the variable that the message names."


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


class ConfigurationMissingError(InvalidInputError):
    """The code of the run's configuration is not registered in this process."""

    hint = "Call `register_agents(agent, run_config=RunConfig(...))` in the program that executes the run."


class AgentAlreadyRegisteredError(InvalidInputError):
    """Another agent is registered under that name."""

    hint = "Give the agents different names, or replace the registered one: `register_agents(agent, replace=True)`."


class NotDurableError(InvalidInputError):
    """The parameter could not be found again after a crash."""


class RunInputMismatchError(InvalidInputError):
    """The run id is known with another input."""

    hint = "Use a new id for new work; the same id returns the recorded result of the first input."


class RunDuplicatedError(InvalidInputError):
    """Another run of the queue has this deduplication id."""

    hint = "Wait until that run has ended, or pass on_duplicate='return' to get its handle instead."

    def __init__(self, message: str | None = None, *, hint: str | None = None, run_id: str = "") -> None:
        super().__init__(message, hint=hint)
        self.run_id = run_id


class ModelNotConfiguredError(TimestepError, ValueError):
    """The model cannot be used as it is named or configured."""

    hint = "See the providers and their models with `timestep models list`."


class RunNotFoundError(TimestepError):
    """There is no such run."""

    hint = "List the runs with `timestep runs list`."


class QueueNotFoundError(TimestepError):
    """There is no such queue."""

    hint = "List the queues with `timestep queues list`."


class QueueNotEmptyError(TimestepError):
    """Runs wait in the queue."""

    hint = "Let them run, or cancel them with `timestep runs cancel ID`."


class SessionNotFoundError(TimestepError):
    """There is no such session."""

    hint = "List the sessions with `timestep sessions list`."


class SessionInUseError(TimestepError):
    """Runs of the session have not ended."""

    hint = "Let them end, or cancel them with `timestep runs cancel ID`; --force (force=True) deletes it all the same."


class RunStateError(TimestepError):
    """The run is not in a state that allows this."""


class ScheduleNotFoundError(TimestepError):
    """There is no such schedule."""

    hint = "List the schedules with `timestep schedules list`."


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


class ApprovalError(TimestepError):
    """The decision cannot be taken."""

    hint = "See what waits with `timestep approvals list`."


class ApprovalNotFoundError(ApprovalError):
    """There is no such approval."""


class ApprovalAlreadyDecided(ApprovalError):
    """Somebody has decided it already."""

    hint = "The first decision holds. See it with `timestep approvals show ID`."

    def __init__(
        self,
        message: str | None = None,
        *,
        hint: str | None = None,
        approval_id: str = "",
        status: str = "",
        decided_by: str | None = None,
        decided_at: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.approval_id, self.status = approval_id, status
        self.decided_by, self.decided_at = decided_by, decided_at


class ApprovalExpiredError(ApprovalError):
    """Nobody decided in time."""

    hint = "The run went on without it, or failed: see `timestep runs show ID`. `timestep runs resume ID` asks again."


class ApprovalNotWaitingError(ApprovalError):
    """The run does not wait for this decision."""

    hint = "Look at the run with `timestep runs show ID`; a cancelled one waits again after `timestep runs resume ID`."


class ApprovalChangedError(ApprovalError):
    """The arguments are not those that were shown."""

    hint = "Show the approval again and decide about what it says now."


class AmbiguousCallError(ApprovalError):
    """More than one open call of the run has this call id."""

    hint = "Decide by `approval_id=`."


class SnapshotError(TimestepError):
    """The stored run state cannot be used."""


class RunStateNotFoundError(SnapshotError, FileNotFoundError):
    """No run state is stored under this session."""

    hint = "Save one with `await store.save(result.to_state())`, or start with plain input."


class SnapshotAlreadyResumed(SnapshotError):
    """The snapshot was resumed before."""

    hint = "Load the newest state with `await store.load()`, or pass `branch=True` to run it a second time."


class SnapshotDamagedError(SnapshotError):
    """The text of the snapshot is not the one that was stored."""

    hint = "It was edited or damaged. Restore the row, then `timestep runs resume ID`; or start the work again."


class SnapshotMismatchError(SnapshotError):
    """The snapshot does not fit the agents of this process."""

    hint = "Deploy the agents and tools that it names, then `timestep runs resume ID`."


class SnapshotTooLargeError(SnapshotError):
    """The snapshot is larger than the limit."""

    hint = "Keep large data outside of the conversation, or raise TIMESTEP_MAX_RESULT_BYTES: the limit is twice that."


class LimitReachedError(TimestepError):
    """The run reached a limit of its budget."""

    hint = "Start the work with higher limits, or with `on_limit='interrupt'` to be asked."


class OutcomeUnknownError(TimestepError):
    """A tool call was started, and nobody knows whether it happened."""

    hint = "Find out at the service that the tool changes; its idempotency key is in `timestep runs show ID`."


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


class ModelProviderError(TimestepError):
    """The provider of the model refused the call."""

    hint = "See what the provider says; `timestep models check NAME` makes a small call."

    def __init__(
        self,
        message: str | None = None,
        *,
        hint: str | None = None,
        status_code: int | None = None,
        retry_after_seconds: float | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status_code, self.retry_after_seconds, self.retryable = status_code, retry_after_seconds, retryable


class ModelNotFoundError(ModelProviderError):
    """The provider does not have the model."""

    hint = "List the models that it has with `timestep models list`."


class ModelServerUnreachableError(ModelProviderError):
    """No model server answers at the address."""

    hint = "Start the server, or correct its address."

    def __init__(
        self,
        message: str | None = None,
        *,
        hint: str | None = None,
        status_code: int | None = None,
        retry_after_seconds: float | None = None,
        retryable: bool = True,
    ) -> None:
        super().__init__(
            message,
            hint=hint,
            status_code=status_code,
            retry_after_seconds=retry_after_seconds,
            retryable=retryable,
        )


class UnsupportedError(TimestepError):
    """This is not supported."""
