"""Settings that all tests share."""

from hypothesis import settings

# No deadline: other work may share the machine. Failures print how to run them again.
settings.register_profile("labelmint", deadline=None, print_blob=True)
settings.load_profile("labelmint")
