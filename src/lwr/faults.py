"""Named points at which a test may kill this process, to prove that nothing accepted is lost.

`LWR_FAULT=name` kills at the first hit of that point, `LWR_FAULT=name:N` at the N-th; unset, a point costs one
comparison. Knows nothing of what happens around the points.
"""

from __future__ import annotations

import os
import signal
import threading

_wanted, _, _count = os.environ.get("LWR_FAULT", "").partition(":")
_hits_left = int(_count) if _count.isdigit() else 1
_lock = threading.Lock()


def fault(point: str) -> None:
    """Die here and now, without any clean-up, when the environment says so. May be called from any thread."""
    if point != _wanted:
        return
    global _hits_left
    with _lock:
        _hits_left -= 1
        if _hits_left <= 0:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
