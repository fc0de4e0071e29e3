"""What ends a replay before its end."""


class WrongUsage(Exception):
    """The replay cannot begin like this; the message names the cause and the next step in one line. Exit code 2."""


class Broken(Exception):
    """The server, or the way to it, does not do what the replay needs to go on. Exit code 1."""
