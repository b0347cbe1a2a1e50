"""Ranges of the numbers in any group of settings."""

import math

from latentnmt.errors import InputError

# In words, as a test, and the names of the fields. A new numeric field of any
# configuration goes into one of these rows: what is in none is not checked.
_RANGES = (
  (
    "1 or more",
    lambda value: value >= 1,
    "width hidden heads max_length encoder_layers posterior_layers"
    " decoder_layers layers channels length_multiple max_length_difference"
    " steps batch_tokens max_shapes eval_every log_every",
  ),
  ("3 or more (padding, end, unknown)", lambda v: v >= 3, "vocab_size"),
  (
    "0 or more",
    lambda value: 0 <= value < math.inf,
    "seed warmup schedule_restart clip kl_start kl_ramp free_nats alpha"
    " patience keep_every posterior_gain extra",
  ),
  (
    "above 0",
    lambda value: 0 < value < math.inf,
    "learning_rate adam_eps scale",
  ),
  (
    "at least 0 and less than 1",
    lambda value: 0 <= value < 1,
    "dropout attention_dropout hidden_dropout posterior_word_dropout adam_b1"
    " adam_b2 label_smoothing escape",
  ),
  ("0 to 1", lambda value: 0 <= value <= 1, "glancing"),
)


def check_ranges(config) -> None:
  """Raises InputError for a field of a configuration that is out of range."""
  for words, test, names in _RANGES:
    for name in names.split():
      value = getattr(config, name, None)
      values = value if isinstance(value, tuple) else (value,)
      if value is not None and not all(map(test, values)):
        raise InputError(f"{name}={value}; it should be {words}.")
