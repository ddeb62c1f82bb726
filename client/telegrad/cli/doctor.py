"""``telegrad doctor``: all that is between this program and a computed number, in order, and what to do if it ends."""

from __future__ import annotations

from collections.abc import Callable

import click

from telegrad.cli.checks import (
    CHECKS,
    EMBEDDED_CHECKS,
    Examination,
    Finding,
    client,
)
from telegrad.cli.report import Reporting, json_option, write_json
from telegrad.cli.target import Target, may_ask_a_server

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "bright_black"}


@click.command(cls=Reporting)
@may_ask_a_server
@json_option
def doctor(target: Target | None, as_json: bool) -> None:
    """Find out what is wrong between here and SERVER, and say what to do.

    Without a server it looks at this machine, as tg.connect() uses it. The exit status is 0 if nothing failed, else
    that of the first failure.
    """
    findings = examine(target, told=(lambda finding: None) if as_json else _tell)
    exit_status = next((f.exit for f in findings if f.verdict == "fail"), 0)
    if as_json:
        write_json(
            {
                "address": target.address if target is not None else None,
                "exit": exit_status,
                "checks": [
                    {"check": f.check, "verdict": f.verdict, "found": f.found, "advice": f.advice} for f in findings
                ],
            }
        )
    click.get_current_context().exit(exit_status)


def examine(target: Target | None, *, told: Callable[[Finding], None]) -> list[Finding]:
    """Every check's findings; ``told`` hears each at once. What comes after a failure is skipped."""
    findings = [client()]
    told(findings[0])
    state = Examination(target)
    has_failed = False
    for name, check in CHECKS if target is not None else EMBEDDED_CHECKS:
        new = [Finding(name, "skip", "not known, since what comes before it failed")] if has_failed else check(state)
        for finding in new:
            told(finding)
            has_failed = has_failed or finding.verdict == "fail"
        findings += new
    return findings


def _tell(finding: Finding) -> None:
    click.echo(f"{click.style(f'{finding.verdict:5}', fg=COLOURS[finding.verdict])}{finding.check:9}{finding.found}")
    if finding.advice:
        click.echo(f"{'':14}-> {finding.advice}")
