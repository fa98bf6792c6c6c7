"""The companion labs; see README.md."""

import report  # noqa: F401  (Ctrl-C while modules load, as there)
