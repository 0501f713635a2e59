"""How sphinx builds these pages. Links that lead nowhere are errors (`make docs` runs with -W)."""

from __future__ import annotations

from importlib.metadata import version as installed_version

project = "LWR"
author = "The LWR contributors"
copyright = "2026, The LWR contributors"  # noqa: A001  (sphinx's name for it)
release = version = installed_version("lwr")

extensions = ["myst_parser"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]
exclude_patterns = ["_build"]
nitpicky = True

html_theme = "furo"
html_title = f"LWR {release}"
html_static_path: list[str] = []
