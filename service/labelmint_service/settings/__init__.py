"""Settings of the server: flags over environment over file over defaults, checked once at the start.

Each setting is one field. `max_streams` is the flag `--max-streams`, the variable `LABELMINT_SERVE_MAX_STREAMS` and the
key `max_streams` of the TOML or JSON file that `--config` or `LABELMINT_SERVE_CONFIG` names. Unknown flags, variables
with that prefix and keys are errors.

models, repository, connections, streams, watching  the fields, by what they are about
lists                                               those that are lists, as flags and variables write them
service                                             all of them, and what they ask of each other
reading                                             where their values come from
"""

from labelmint_service.settings.models import EMBEDDED_BUNDLE
from labelmint_service.settings.reading import load_settings
from labelmint_service.settings.service import ENV_PREFIX, ServiceSettings

__all__ = ["EMBEDDED_BUNDLE", "ENV_PREFIX", "ServiceSettings", "load_settings"]
