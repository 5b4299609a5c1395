"""Every bound of the demonstration, with its unit and the reason for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoLimits:
    """Bounds of the model server and of the stage; none of them guards production traffic."""

    body_bytes: int = 1 << 20
    """A request body; 1,000 images of 64 numbers fit well inside."""
    batch_images: int = 1_000
    """Images of one `infer`; keeps one call under about 10 ms."""
    stream_events: int = 100_000
    """Events of one stream; a forgotten client cannot keep the server busy for ever."""
    stream_interval_ms: int = 60_000
    """Longest pause between two events that a caller may ask for."""
    token_interval_s: float = 0.05
    """Pause between two tokens of a chat; about the pace of a language model."""
    certificate_days: int = 2
    """Life of the throw-away authority and all it signs: long enough for `--keep`, too short to be worth stealing."""
    start_s: float = 60.0
    """Longest wait for one process to become ready; scikit-learn's import alone takes seconds on a cold disk."""
    stop_s: float = 10.0
    """Grace of a process between SIGTERM and SIGKILL."""
    signal_s: float = 0.2
    """Longest time that a signal to a waiting demonstration goes unnoticed."""
    audit_records: int = 10_000
    """Records read back at the end of the story; it leaves about a hundred."""
    command_s: float = 60.0
    """Longest run of one `pdp` command of the story."""
    call_s: float = 15.0
    """Longest wait for one answer through the gate, or for one event of a stream."""
    poll_s: float = 0.02
    """Pause between two looks where there is nothing to wait on."""
    cut_s: float = 10.0
    """Longest wait for a stream to end once its access has ended."""


LIMITS: Final = DemoLimits()
