"""Logs how far a long computation is."""

import logging
import time

SECONDS = 5.0  # between two lines; a shorter computation logs nothing


class Progress:
    """Logs a line every few seconds, however often it is called."""

    def __init__(self, log: logging.Logger, what: str) -> None:
        """Takes the log, and the name of the computation, such as 'fitting the law'."""
        self.log, self.what, self.said = log, what, time.monotonic()

    def tell(self, how_far: str) -> None:
        """Logs `how_far` unless the last line, or the start, was a moment ago."""
        if time.monotonic() - self.said >= SECONDS:
            self.log.info("%s: %s", self.what, how_far)
            self.said = time.monotonic()
