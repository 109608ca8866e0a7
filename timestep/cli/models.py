"""`timestep models`: which models there are, and what one of them can do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from timestep.cli.errors import ExitCode
from timestep.cli.output import coloured, emit, emit_json, emit_table, json_option, note

if TYPE_CHECKING:
    from agents import ModelProvider

    from timestep.models.checks import ModelCheck
    from timestep.models.listing import ProviderReport

_COLOURS = {"reachable": "green", "unreachable": "red", "no key": "yellow", "not looked at": "cyan"}


def _module_option(function: click.decorators.FC) -> click.decorators.FC:
    text = "Import this first: a module that sets the default model provider."
    return click.option("--module", metavar="MODULE", help=text)(function)


@click.group()
def command() -> None:
    """List the models of the configured providers, and try one.

    \b
    Example:
      timestep models list
    """


@command.command("list")
@_module_option
@json_option
def list_command(module: str | None, as_json: bool) -> None:
    """Print each provider with its address, why it is that one, whether it answers, and its models.

    \b
    Example:
      timestep models list --json
    """
    from timestep.models.listing import look_at_providers

    reports = asyncio.run(look_at_providers(_provider(module)))
    if as_json:
        emit_json(reports)
        return
    emit_table(["PREFIX", "ADDRESS", "BECAUSE OF", "STATE", "MODELS"], [_row(report) for report in reports])
    for report in reports:
        if report.problem:
            note(f"{report.prefix}/: {report.problem}")
        if report.hint:
            note(f"  hint: {report.hint}")
    for report in reports:
        if report.models:
            emit()
            for name in report.models:
                emit(name)


@command.command()
@click.argument("name", metavar="NAME")
@click.option("--timeout", "timeout_seconds", type=click.FloatRange(min=0, min_open=True), default=120.0,
              show_default=True, metavar="SECONDS", help="Longest wait for one answer.")  # fmt: skip
@_module_option
@json_option
@click.pass_context
def check(context: click.Context, name: str, timeout_seconds: float, module: str | None, as_json: bool) -> None:
    """Make four small calls of a model: text, a tool call, structured output, a stream.

    The exit code is 1 when one of them does not work.

    \b
    Example:
      timestep models check ollama/gpt-oss:20b
    """
    found = asyncio.run(_check(name, timeout_seconds=timeout_seconds, module=module, is_quiet=as_json))
    if as_json:
        emit_json({"model": name, "checks": found})
    if not all(each.works for each in found):
        context.exit(ExitCode.FAILED)


async def _check(name: str, *, timeout_seconds: float, module: str | None, is_quiet: bool) -> list[ModelCheck]:
    from timestep.cli.quiet import quieten
    from timestep.models.checks import CHECKS, check_model

    model = _provider(module).get_model(name)
    quieten()
    found: list[ModelCheck] = []
    told: set[str] = set()
    width = max(map(len, CHECKS))
    async for each in check_model(model, timeout_seconds=timeout_seconds):
        found.append(each)
        if not is_quiet:
            word = coloured("ok  " if each.works else "fail", "green" if each.works else "red")
            emit(f"{word}  {each.name:<{width}}  {each.seconds:6.1f} s  {each.detail}")
            if each.hint and each.hint not in told:
                note(f"      hint: {each.hint}")
                told.add(each.hint)
    return found


def _provider(module: str | None) -> ModelProvider:
    if module is not None:
        from timestep.cli.find_agents import load_module

        load_module(module)
    from timestep.models.multi_model import default_model_provider

    return default_model_provider()


def _row(report: ProviderReport) -> list[object]:
    prefix = f"{report.prefix}/" if report.prefix else ""
    state = coloured(report.state, _COLOURS[report.state])
    return [prefix, report.url, report.reason, state, len(report.models) or ""]
