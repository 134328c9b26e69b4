"""How Sphinx builds the documentation: `sphinx-build -W docs BUILD`, where a broken link is an error."""

# Sphinx prescribes the names.
project = "Instance manager"
extensions = ["myst_parser"]
myst_heading_anchors = 4
exclude_patterns = ["_build"]
html_theme = "alabaster"
suppress_warnings = ["misc.highlighting_failure"]  # Pygments knows no Mermaid
