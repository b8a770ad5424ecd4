"""Errors for the person at the terminal, and errors of other libraries in one line."""


class UserError(ValueError):
    """A mistake in the user's input: a config, a file, a command. A job prints it as one line.

    The message names the key or the file, its value, what is allowed and what to do. Any other error is a bug of
    ours, or of a library, and keeps its traceback.
    """


class DivergedError(UserError):
    """A loss is not finite, or absurdly large, so the run, as configured, cannot go on."""


def refusal(error: OSError) -> str:
    """What the file system said of a file or folder."""
    if isinstance(error, FileExistsError):  # mkdir raises this for a file in the place of a folder
        return f"'{error.filename}' is no folder"
    return error.strerror or first_line(error)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its type if the message is empty."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
