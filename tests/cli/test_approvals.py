"""`timestep approvals`, and the verbs of `timestep runs` that decide: what they print, store, and refuse."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from command_line import LIMIT_SECONDS, Ended, Shop, worker
from stored_runs import close_run

from timestep import cli
from timestep.records import Approval
from timestep.store.approvals import find_approval
from timestep.store.connection import Database, open_database
from timestep.store.runs import get_stored_run
from timestep.store.tables import approvals, runs

QUESTION = {
    "kind": "question", "tool": "ask_user", "arguments": '{"question": "Which\\nsize?"}',
    "details": {"question": "Which\nsize?", "choices": ["S", "M"]},
}  # fmt: skip
UNKNOWN = {
    "kind": "outcome_unknown", "call_key": "1:call_0", "details": {"segment": 1, "attempt": 2, "started_at": "then"},
}  # fmt: skip
LIMIT = {
    "kind": "limit", "tool": "", "call_id": "", "arguments": "",
    "details": {"limit": "max_turns", "value": 3, "used": 3, "message": "The run has reached its limit."},
}  # fmt: skip


@dataclass
class Desk:
    """The command line on the shop's database, and the rows below it."""

    database: Database
    shop: Shop

    def call(self, *words: str) -> Ended:
        """Run `timestep WORDS...`."""
        return self.shop.call(*words, variables={"LOGNAME": "ann"})

    def waiting(self, run_id: str, *calls: dict[str, Any], **run: Any) -> list[str]:
        """Store a run that waits for these calls and return the approval ids."""
        asked = [_asked(run_id, place, call) for place, call in enumerate(calls)]
        close_run(self.database, run_id, agent="clerk", approvals=asked)
        if run:
            self.execute(sa.update(runs).where(runs.c.id == run_id).values(run))
        return [each.id for each in asked]

    def approval(self, approval_id: str) -> Approval:
        found = self.database.run_sync(find_approval, approval_id)
        assert found is not None
        return found

    def status(self, run_id: str) -> str:
        return self.database.run_sync(get_stored_run, run_id).run.status

    def execute(self, statement: Any) -> None:
        self.database.run_sync(lambda connection: connection.execute(statement))


def _asked(run_id: str, place: int, call: dict[str, Any]) -> Approval:
    arguments = call.get("arguments", '{"order": 7}')
    given: dict[str, Any] = {
        "id": f"{run_id}.{place}", "run_id": run_id, "segment": 1, "place": place, "session_id": None,
        "agent": "clerk", "tool": "refund", "call_id": f"call_{place}", "arguments": arguments,
        "arguments_digest": hashlib.sha256(arguments.encode()).hexdigest(),
    }  # fmt: skip
    return Approval(**given | call)


@pytest.fixture(scope="module")
def database(shop_of_module: Shop) -> Iterator[Database]:
    assert shop_of_module.call("approvals", "list").returncode == 0  # the first command makes the tables
    database = open_database(shop_of_module.server.url(shop_of_module.database), application="test")
    yield database
    database.close()


@pytest.fixture
def desk(database: Database, shop_of_module: Shop) -> Desk:
    """A desk where nothing waits yet."""
    desk = Desk(database, shop_of_module)
    for table in (approvals, runs):
        desk.execute(sa.delete(table))
    desk.execute(sa.text("delete from dbos.workflow_status"))
    return desk


@pytest.mark.slow
def test_a_run_that_waits_is_decided_and_goes_on_in_a_worker(shop: Shop) -> None:
    asked = shop.call("run", "money back", "--agent", "shop:clerk", "--id", "paid-back")
    assert (asked.returncode, asked.stdout) == (5, "")
    command = next(line.split() for line in asked.stderr.splitlines() if "approvals approve" in line)
    assert "  timestep worker shop\n" in asked.stderr
    decided = shop.call(*command[1:], "--by", "ann@shop")
    assert (decided.returncode, decided.stdout) == (0, "")
    assert decided.stderr == (
        'Approved refund({"order": 7}) of run paid-back.\n'
        "The run goes on as soon as an executor has the agent 'clerk'; none is alive.\n"
        "  start one:  timestep worker MODULE\n"
        "  watch it:   timestep runs tail paid-back\n"
    )
    with worker(shop, "shop"):
        ended = shop.call("runs", "result", "paid-back", "--wait", str(LIMIT_SECONDS))
        assert (ended.returncode, ended.stdout) == (0, "It is paid back.\n"), ended.stderr
        assert shop.call("run", "money back", "--agent", "clerk", "--id", "refused").returncode == 5
        rejected = shop.call("approvals", "reject", "refused", "--reason", "no")
        assert rejected.stderr.splitlines()[1:] == ["The run goes on.", "  watch it:   timestep runs tail refused"]
        assert shop.call("runs", "result", "refused", "--wait", str(LIMIT_SECONDS)).returncode == 0


@pytest.mark.slow
def test_the_commands_do_not_load_the_agents_sdk(shop: Shop) -> None:
    program = (
        "import sys, atexit\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "from timestep.cli import main\n"
        "main(['approvals', 'list'])"
    )
    run = subprocess.run(
        [sys.executable, "-P", "-c", program], cwd=shop.folder, env=shop.environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert not {"agents", "openai", "rich", "timestep.durable"} & set(run.stderr.split())


def test_list_has_a_line_for_each_decision_the_oldest_first(desk: Desk) -> None:
    nothing = desk.call("approvals", "list")
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, "", "No approval waits.\n")
    soon = datetime.now(UTC) + timedelta(hours=2, minutes=1)
    engine_id = "3f2a91c0-5a1b-5c2d-8e3f-123456789abc"
    desk.waiting("first", {"id": engine_id, "expires_at": soon}, QUESTION)
    desk.waiting("second", UNKNOWN, LIMIT)
    listed = desk.call("approvals", "list")
    assert (listed.returncode, listed.stderr) == (0, "")
    head, *rows = [" ".join(line.split()) for line in listed.stdout.splitlines()]
    assert head == "ID RUN KIND AGENT TOOL ASKED FOR AGE EXPIRES"
    assert rows == [
        '3f2a91c0 first approval clerk refund {"order": 7} 0 s in 2 h',
        "first.1 first question clerk ask_user Which size? (S, M) 0 s",
        'second.0 second outcome_unknown clerk refund {"order": 7} 0 s',
        "second.1 second limit clerk max_turns=3, with 3 used 0 s",
    ]
    loaded = json.loads(desk.call("approvals", "list", "--run", "fir", "--json").stdout)
    assert [each["id"] for each in loaded] == [engine_id, "first.1"]
    assert list(loaded[0]) == [field.name for field in fields(Approval)]


def test_list_with_all_has_what_was_decided_after_what_waits(desk: Desk) -> None:
    desk.waiting("done", {}, {})
    desk.call("approvals", "approve", "done.0")
    desk.waiting("new", {})
    assert [each["id"] for each in json.loads(desk.call("approvals", "list", "--json").stdout)] == ["done.1", "new.0"]
    listed = desk.call("approvals", "list", "--all").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["ID", "done.1", "new.0", "done.0"]
    assert listed[-1].split()[-2:] == ["approved", "ann"]
    cut = desk.call("approvals", "list", "--all", "--limit", "2")
    assert [line.split()[0] for line in cut.stdout.splitlines()] == ["ID", "done.1", "new.0"]
    assert cut.stderr == "There are more: timestep approvals list --limit 4\n"
    assert len(json.loads(desk.call("approvals", "list", "--limit", "1", "--json").stdout)) == 1
    none = desk.call("approvals", "list", "--run", "done", "--limit", "1")
    assert none.stderr == ""
    desk.call("approvals", "approve", "done.1")
    assert desk.call("approvals", "list", "--run", "done").stderr == "No approval of run done waits.\n"


def test_show_prints_everything_and_what_to_type(desk: Desk) -> None:
    past = datetime.now(UTC) - timedelta(minutes=5)
    arguments = '{"order": 7, "note": "\u202edetrevni", "text": "a\\nb"}'
    desk.waiting("order-43", {"arguments": arguments, "expires_at": past, "on_expiry": "fail", "session_id": "ann"})
    shown = desk.call("approvals", "show", "order-43")
    assert shown.stdout == desk.call("approvals", "show", "order-43.").stdout
    lines = shown.stdout.splitlines()
    named = {line.split()[0]: " ".join(line.split()[1:]) for line in lines if line and not line.startswith(" ")}
    assert (named["approval"], named["kind"], named["run"]) == (
        "order-43.0", "approval", "order-43 (interrupted, approval)",
    )  # fmt: skip
    assert (named["agent"], named["tool"], named["call"], named["session"]) == ("clerk", "refund", "call_0", "ann")
    assert named["status"] == "open"
    assert named["expires"].endswith("(5 min ago); then the run fails")
    assert named["digest"] == hashlib.sha256(arguments.encode()).hexdigest()
    assert lines[lines.index("arguments") + 1 :] == [
        "  {", '    "order": 7,', '    "note": "\\u202edetrevni",', '    "text": "a\\nb"', "  }", "",
        "timestep approvals approve order-43.0", "timestep approvals reject order-43.0 --reason TEXT",
    ]  # fmt: skip
    loaded = json.loads(desk.call("approvals", "show", "order-43", "--json").stdout)
    assert loaded["arguments"] == arguments


def test_arguments_that_json_would_tidy_up_are_shown_as_they_are(desk: Desk) -> None:
    for number, text in enumerate(['{"order": 7, "order": 8}', "no json", ""]):
        desk.waiting(f"run-{number}", {"arguments": text})
        lines = desk.call("approvals", "show", f"run-{number}").stdout.splitlines()
        assert lines[lines.index("arguments") + 1].strip() == (text or "{}")


def test_show_prints_the_decision(desk: Desk) -> None:
    desk.waiting("order-43", {}, QUESTION, UNKNOWN, LIMIT)
    assert desk.call("approvals", "reject", "order-43.0", "--reason", "Too much.", "--always").returncode == 0
    rejected = desk.call("approvals", "show", "order-43.0").stdout
    assert "status    rejected by ann, " in rejected
    assert ", for every further call of this tool by this agent in this run\n" in rejected
    assert "reason    Too much.\n" in rejected
    assert "timestep" not in rejected
    question = desk.call("approvals", "show", "order-43.1").stdout
    assert "question  Which size?\nchoices   S, M\n" in question
    assert question.endswith("\ntimestep runs answer order-43 TEXT\n")
    unknown = desk.call("approvals", "show", "order-43.2").stdout
    assert "key       order-43:1:call_0\nattempt   2\nstarted   then\n" in unknown
    assert "timestep runs settle order-43 --did-not-happen\n" in unknown
    limit = desk.call("approvals", "show", "order-43.3").stdout
    assert "limit     max_turns=3\nused      3\nmessage   The run has reached its limit.\n" in limit
    assert "timestep runs raise-limits order-43 --max-turns N\n" in limit
    assert "arguments" not in limit


def test_a_decision_says_what_the_run_still_waits_for(desk: Desk) -> None:
    desk.waiting("order-43", {}, {}, {"tool": "ship"}, QUESTION)
    decided = desk.call("approvals", "approve", "order-43", "call_1", "--always", "--by", "bob")
    assert (decided.returncode, decided.stdout) == (0, "")
    assert decided.stderr == (
        'Approved refund({"order": 7}) of run order-43.\n'
        "So is every further call of refund by clerk in this run; 1 more was open.\n"
        "The run still waits for 2 decisions:\n"
        '  an approval of ship({"order": 7})\n'
        "    timestep approvals approve order-43.2\n"
        "  an answer: Which size? (S, M)\n"
        "    timestep runs answer order-43 TEXT\n"
    )
    assert [desk.approval(f"order-43.{place}").decided_by for place in range(3)] == ["bob", "bob", None]
    assert desk.call("approvals", "approve", "order-43", "--quiet").stderr == ""  # the only one of its kind
    assert desk.call("runs", "answer", "order-43", "M").stderr.startswith(
        "Answered the question of run order-43.\nThe run goes on as soon as an executor has the agent 'clerk'"
    )
    assert (desk.approval("order-43.3").answer, desk.status("order-43")) == ("M", "queued")


def test_an_unknown_outcome_is_settled(desk: Desk) -> None:
    answers = {
        ("--happened", '{"receipt": 7}'): {"outcome": "happened", "result": {"receipt": 7}},
        ("--happened", "null"): {"outcome": "happened", "result": None},
        ("--did-not-happen",): {"outcome": "did_not_happen"},
    }
    for number, (words, stored) in enumerate(answers.items()):
        desk.waiting(f"run-{number}", UNKNOWN)
        settled = desk.call("runs", "settle", f"run-{number}", *words)
        assert settled.stderr.startswith(f'Settled refund({{"order": 7}}) of run run-{number}.\nThe run goes on')
        assert desk.approval(f"run-{number}.0").answer == stored
    desk.waiting("lost", UNKNOWN)
    failed = desk.call("runs", "settle", "lost", "--fail")
    assert failed.returncode == 0
    assert failed.stderr.splitlines()[1] == (
        "The run has failed: OutcomeUnknownError: The outcome of the call of refund is unknown."
    )


def test_limits_are_raised(desk: Desk) -> None:
    desk.waiting("order-43", LIMIT)
    low = desk.call("runs", "raise-limits", "order-43", "--max-turns", "3")
    assert low.returncode == 2
    assert low.stderr == (
        "error: The run 'order-43' has reached max_turns=3 and used 3; the new limit is 3.\n\n"
        "hint: Type `timestep runs raise-limits order-43 --max-turns N` with more than 3.\n"
    )
    words = ("--max-turns", "9", "--max-seconds", "1.5", "--max-cost-micro-usd", "500000", "--by", "bob")
    raised = desk.call("runs", "raise-limits", "order-43", *words)
    assert raised.stderr.startswith("Raised the limit of run order-43.\nThe run goes on")
    assert desk.approval("order-43.0").answer == {
        "limits": {"max_turns": 9, "max_cost_micro_usd": 500000, "max_seconds": 1.5}
    }


def test_the_commands_that_are_shown_name_each_of_many_calls(desk: Desk) -> None:
    same = QUESTION | {"call_id": "same"}
    desk.waiting("two words", QUESTION, same, same)
    shown = desk.call("runs", "show", "two words").stdout
    typed = [line.strip() for line in shown.splitlines() if line.startswith("  timestep")]
    assert typed == [
        "timestep runs answer 'two words' TEXT --call call_0",
        "timestep runs answer 'two words.1' TEXT",
        "timestep runs answer 'two words.2' TEXT",
    ]
    assert "waits for an answer: Which size? (S, M)\n" in shown
    assert desk.call("runs", "answer", "two words", "S", "--call", "call_0").returncode == 0
    assert desk.call("runs", "answer", "two words.1", "M").returncode == 0
    assert [desk.approval(f"two words.{place}").answer for place in range(3)] == ["S", "M", None]


def test_runs_list_and_show_say_why_a_run_is_interrupted(desk: Desk) -> None:
    desk.waiting("order-43", LIMIT, reason="limit")
    desk.waiting("lost", reason="agent_not_registered", closed_segment=0)
    error = {"type": "HistoryChangedError", "message": "the code is another"}
    desk.waiting("changed", reason="history_changed", closed_segment=0, error=error)
    missing = {"type": "ConfigurationMissingError", "message": "without the run_config.tracing"}
    desk.waiting("bare", reason="configuration_missing", closed_segment=0, error=missing)
    listed = desk.call("runs", "list").stdout
    assert "  interrupted (limit)  " in listed
    assert "  interrupted (agent_not_registered)  " in listed
    assert (
        "waits for a higher limit than max_turns=3, with 3 used\n"
        "  timestep runs raise-limits order-43 --max-turns N\n  timestep approvals reject order-43.0\n"
    ) in desk.call("runs", "show", "order-43").stdout
    lost = desk.call("runs", "show", "lost").stdout
    assert "waits for an executor that has the agent 'clerk'\n  timestep worker MODULE\n" in lost
    bare = desk.call("runs", "show", "bare").stdout
    assert "error   ConfigurationMissingError: without the run_config.tracing" in bare
    wish = "waits for an executor that has the agent 'clerk' with the code of this run's configuration"
    assert f"{wish}\n  timestep worker MODULE\n" in bare
    changed = desk.call("runs", "show", "changed").stdout
    assert "error   HistoryChangedError: the code is another\n" in changed
    assert "waits until its cause is mended\n  timestep runs resume changed\n" in changed
    result = desk.call("runs", "result", "order-43")
    assert (result.returncode, result.stdout) == (5, "")
    assert result.stderr.startswith("error: The run 'order-43' waits for a higher limit than max_turns=3")


Store = Callable[[Desk], object]


@pytest.mark.parametrize(
    ("store", "words", "code", "message", "hint"),
    [
        (lambda desk: None, "approvals approve nonsense", 3, "There is no approval or run 'nonsense'.",
         "approvals list"),
        (lambda desk: None, "approvals show ''", 3, "There is no approval ''.", "approvals list"),
        (lambda desk: None, "approvals reject nonsense call_1", 3, "There is no run 'nonsense'.", "runs list"),
        (lambda desk: None, "approvals list --run nonsense", 3, "There is no run 'nonsense'.", "runs list"),
        (lambda desk: None, "runs answer nonsense S", 3, "There is no approval or run 'nonsense'.", "approvals list"),
        (lambda desk: desk.waiting("order-43", {}), "runs show ''", 3, "There is no run ''.", "runs list"),
        (lambda desk: desk.waiting("order-43", {}, {}), "approvals approve order-43.", 3,
         "More than one approval or run begins with 'order-43.': order-43.0, order-43.1.", "more of the id"),
        (lambda desk: desk.waiting("order-43", {}, {}), "approvals approve order-43", 2,
         "The run 'order-43' waits for 2 decisions: order-43.0 an approval of refund", "id of one of them"),
        (lambda desk: desk.waiting("order-43", {"call_id": "c"}, {"call_id": "c"}), "approvals approve order-43 c", 2,
         "The run 'order-43' has 2 open calls 'c': order-43.0 ", "id of one of them"),
        (lambda desk: desk.waiting("order-43", {}), "approvals approve order-43 call_9", 3,
         "The run 'order-43' has no call 'call_9' that waits: it is interrupted.", "runs show order-43"),
        (lambda desk: desk.waiting("order-43", status="succeeded"), "approvals show order-43", 3,
         "The run 'order-43' waits for no decision: it is succeeded.", "runs show order-43"),
        (lambda desk: desk.waiting("order-43", {}, status="cancelled"), "approvals approve order-43", 1,
         "The approval order-43.0 of run 'order-43' does not wait any more: the run is cancelled.", "runs resume"),
        (lambda desk: desk.waiting("order-43", {"expires_at": datetime(2026, 1, 2, tzinfo=UTC)}),
         "approvals approve order-43", 1, "The approval order-43.0 of run 'order-43' expired at 20", "runs show"),
        (lambda desk: desk.waiting("order-43", QUESTION), "approvals approve order-43", 2,
         "The question order-43.0 of run 'order-43' takes another kind of decision.",
         "`timestep runs answer order-43 TEXT`"),
        (lambda desk: desk.waiting("order-43", {}), "runs answer order-43 S", 2,
         "The approval order-43.0 of run 'order-43' takes another", "`timestep approvals approve order-43.0`"),
        (lambda desk: desk.waiting("order-43", LIMIT), "runs settle order-43.0 --fail", 2,
         "The limit order-43.0 of run 'order-43' takes another", "raise-limits order-43 --max-turns N"),
        (lambda desk: desk.waiting("order-43", QUESTION), "runs answer order-43 XL", 2,
         "The answer 'XL' is none of the choices.", "Answer one of 'S', 'M'."),
        (lambda desk: desk.waiting("order-43", UNKNOWN), "runs settle order-43 --happened paid", 2,
         "--happened takes JSON, not 'paid'", "--happened '\"paid\"'"),
        (lambda desk: desk.waiting("order-43", UNKNOWN), "runs settle order-43 --happened NaN", 2,
         "--happened takes JSON, not 'NaN': NaN is not JSON.", "--happened"),
        (lambda desk: desk.waiting("order-43", UNKNOWN), "runs settle order-43", 2,
         "Say one of --happened JSON, --did-not-happen and --fail.", "runs settle --help"),
        (lambda desk: desk.waiting("order-43", UNKNOWN), "runs settle order-43 --fail --did-not-happen", 2,
         "Say one of --happened JSON, --did-not-happen and --fail.", "runs settle --help"),
        (lambda desk: desk.waiting("order-43", LIMIT), "runs raise-limits order-43", 2,
         "Say the new limit", "runs raise-limits --help"),
        (lambda desk: desk.waiting("order-43", LIMIT), "runs raise-limits order-43 --max-seconds nan", 2,
         "--max-seconds is a number above 0, not nan.", "runs raise-limits --help"),
        (lambda desk: desk.waiting("order-43", LIMIT), "runs raise-limits order-43 --max-turns 0", 2,
         "Invalid value for '--max-turns'", "runs raise-limits --help"),
        (lambda desk: desk.waiting("order-43", {}), "approvals approve order-43 --by ''", 2,
         "Who decides is a name, not ''.", "--by NAME"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) and value.split()[0] in cli.COMMANDS else "",
)  # fmt: skip
def test_what_cannot_be_decided_is_one_clear_error_and_changes_nothing(
    desk: Desk, store: Store, words: str, code: int, message: str, hint: str
) -> None:
    import shlex

    store(desk)
    ended = desk.call(*shlex.split(words))
    assert (ended.returncode, ended.stdout) == (code, ""), ended.stderr
    assert ended.stderr.startswith(f"error: {message}"), ended.stderr
    assert ended.stderr.count("\n\nhint: ") == 1
    assert hint in ended.stderr.partition("\n\nhint: ")[2], ended.stderr
    listed = json.loads(desk.call("approvals", "list", "--all", "--json").stdout)
    assert {each["status"] for each in listed} <= {"open", "expired"}


def test_the_second_decision_is_told_who_was_first(desk: Desk) -> None:
    desk.waiting("order-43", {}, {})
    desk.call("approvals", "approve", "order-43.0", "--by", "bob")
    for words in (("order-43.0",), ("order-43", "call_0")):
        second = desk.call("approvals", "reject", *words)
        assert second.returncode == 1
        assert second.stderr.startswith("error: The approval order-43.0 of run 'order-43' was approved by 'bob' at 20")
    assert desk.approval("order-43.0").status == "approved"


def test_what_changed_since_it_was_read_is_not_approved(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from timestep.client import approvals as verbs

    desk.waiting("order-43", {})
    find = verbs.find_asked

    def find_and_change(*given: Any, **more: Any) -> Approval:
        found = find(*given, **more)
        desk.execute(sa.update(approvals).values(arguments='{"order": 8}', arguments_digest="other"))
        return found

    monkeypatch.setattr(verbs, "find_asked", find_and_change)
    for verb in ("approve", "reject"):
        desk.execute(sa.update(approvals).values(arguments_digest="first"))
        ended = desk.call("approvals", verb, "order-43")
        assert ended.returncode == 1
        assert "has other arguments than those that were shown" in ended.stderr
    assert desk.status("order-43") == "interrupted"


def test_without_a_login_name_a_decider_must_be_named(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.waiting("order-43", {})

    def no_name() -> str:
        raise OSError("No username set in the environment")

    monkeypatch.setattr("getpass.getuser", no_name)
    ended = desk.call("approvals", "approve", "order-43")
    assert (ended.returncode, ended.stderr) == (
        2, "error: Who decides is not known: this process has no login name.\n\nhint: Say it: add --by NAME.\n",
    )  # fmt: skip
    assert desk.call("approvals", "approve", "order-43", "--by", "ann").returncode == 0


def test_a_prefix_of_runs_and_approvals_alike_is_not_guessed(desk: Desk) -> None:
    desk.waiting("abc", {"id": "abd-1"})
    ambiguous = desk.call("approvals", "approve", "ab")
    assert ambiguous.returncode == 3
    assert "More than one approval or run begins with 'ab': abd-1, run abc." in ambiguous.stderr
    assert desk.call("approvals", "approve", "abd").returncode == 0
