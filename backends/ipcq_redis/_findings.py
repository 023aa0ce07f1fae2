"""Findings for `ipcq doctor`: what a server does with messages if it or its machine fails."""

from ipcq.backend import Finding, Severity
from ipcq.errors import ConnectionLost
from ipcq_redis._opening import Directory


def findings(directory: Directory) -> list[Finding]:
    """Return what users of a database should know."""
    try:
        facts = directory.facts("INFO")
    except ConnectionLost as error:
        return [Finding(severity=Severity.ERROR, text=error.detail or error.wording)]
    return [*_saving(facts.get("aof_enabled"), directory), *_evicting(facts.get("maxmemory_policy", ""))]


def _saving(enabled: str | None, directory: Directory) -> list[Finding]:
    if enabled is None:
        return [Finding(severity=Severity.NOTE, text="the server does not tell whether it saves messages on a disk")]
    if enabled != "1":
        return [
            Finding(
                severity=Severity.WARNING,
                text="the server has no append-only file: if it ends unexpectedly, messages are lost",
                fix="redis-cli CONFIG SET appendonly yes",
            )
        ]
    if directory.setting("appendfsync") in ("everysec", "no"):
        return [
            Finding(
                severity=Severity.WARNING,
                text="the server writes its append-only file to the disk later than it answers: if its machine fails, "
                "the messages accepted last are lost",
                fix="redis-cli CONFIG SET appendfsync always",
            )
        ]
    return []


def _evicting(policy: str) -> list[Finding]:
    if policy in ("", "noeviction"):
        return []
    return [
        Finding(
            severity=Severity.ERROR,
            text=f"the server removes keys when its memory is full (maxmemory-policy {policy}): messages are lost",
            fix="redis-cli CONFIG SET maxmemory-policy noeviction",
        )
    ]
