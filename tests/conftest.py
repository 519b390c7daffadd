"""For all tests: on a busy machine an example may take as long as it likes."""

from hypothesis import settings

settings.register_profile("p2psip", deadline=None)
settings.load_profile("p2psip")
