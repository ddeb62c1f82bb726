"""What happened to a job, and why, as sentences for people. The words are not parsed; kinds and reasons are stable."""

from __future__ import annotations

from collections.abc import Mapping

_LOSSES = {
    "WORKER_LOST": "its worker was lost",
    "WORKER_OOM": "its worker was killed for want of memory",
    "DRAINED": "its worker was stopped by the operator",
    "WORKER_FULL": "its worker had no place for it; it is tried again",
}
_PAUSES = {
    "ASKED": "paused, as somebody asked",
    "STORAGE_FULL": "paused, since the disk has no room; it goes on by itself when there is some",
    "STORAGE_AWAY": "paused, since where its checkpoints or its data are kept nobody answers; it goes on by itself",
    "NONFINITE": "paused at a value that is not finite",
}
_PLAIN = {
    "PauseAsked": "somebody asked it to pause",
    "ResumeAsked": "somebody asked it to go on",
    "CancelAsked": "somebody asked it to end",
    "Removed": "forgotten, with its checkpoints",
    "Continued": "goes on, since it was extended or resumed before it had stopped",
    "StorageBack": "tried again, since what it waited for may be there",
    "Cancelled": "cancelled, as somebody asked; its checkpoints stay",
}


def in_words(kind: str, details: Mapping[str, str]) -> str:
    """An event as a sentence without a full stop. One of a newer server is told by its kind and details."""
    step = details.get("step", "?")
    message = f": {details['message']}" if details.get("message") else ""
    match kind:
        case "Submitted":
            return f"submitted as {details.get('name', '?')}, to train until step {details.get('last_step', '?')}"
        case "Extended":
            return f"extended until step {details.get('last_step', '?')}"
        case "Rewound":
            return f"taken back to step {step}; what it had recorded after that is left out from now on"
        case "Assigned":
            return f"given to worker {details.get('worker', '?')}"
        case "NumericsChanged":
            return f"this worker rounds differently from the one before: {details.get('new')}, not {details.get('old')}"
        case "Started":
            return f"began at step {step}{message}"
        case "Progressed":
            return f"checkpoint of step {step}"
        case "Lost":
            return f"{_LOSSES.get(details.get('why', ''), 'its worker was lost')}{message}"
        case "Paused":
            return f"{_PAUSES.get(details.get('why', ''), 'paused')}{message}"
        case "Failed":
            line = f", at {details['line']}" if details.get("line") else ""
            return f"failed ({details.get('reason', '?')}){message}{line}"
        case "Succeeded":
            early = details.get("is_early") == "True"
            return f"stopped early at step {step}, since its metric got no better" if early else f"done at step {step}"
        case _ if kind in _PLAIN:
            return f"{_PLAIN[kind]}{message}"
        case _:
            return " ".join([kind, *[f"{name}={value}" for name, value in details.items()]])
