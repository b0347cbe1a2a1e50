"""The one exception for mistakes of a user; imports nothing."""


class InputError(ValueError):
  """A mistake of the user: what was given cannot be used.

  The message is one line for a person: the file, line or field, what is wrong
  with it, and the remedy. The binaries print it and exit with status 2.
  """
