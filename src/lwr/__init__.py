"""LWR, the Lightweight Runner: jobs for Galaxy on machines that share no file system with it.

Knows only the version. The way of a job through the rooms below is told in `docs/architecture.md`.
"""

__version__ = "1.0.0.dev0"
