"""The one error of this package."""


class BenchError(Exception):
    """The measurement cannot go on; one line with the cause and, where there is one, the next step."""
