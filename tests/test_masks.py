import jax.numpy as jnp
import numpy as np
import pytest

from latentnmt import masks

# The worked example of the module's docstring.
Y = jnp.array([[7, 8, 1, 0, 0], [9, 1, 0, 0, 0], [0, 0, 0, 0, 0]])


def test_worked_example():
  np.testing.assert_array_equal(
    masks.token_mask(Y), [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [0] * 5]
  )
  np.testing.assert_array_equal(
    masks.shift_right(Y), [[0, 7, 8, 1, 0], [0, 9, 1, 0, 0], [0] * 5]
  )
  np.testing.assert_array_equal(
    masks.trim(jnp.array([[7, 8, 1, 9, 1], [9, 9, 9, 9, 9]])),
    [[7, 8, 1, 0, 0], [9, 9, 9, 9, 9]],
  )


@pytest.mark.parametrize("multiple", [1, 2, 3, 4, 5, 8])
def test_append_eos_reaches_the_multiple_and_nothing_else(multiple):
  filled = np.asarray(masks.append_eos(Y, multiple))
  for before, after in zip(np.asarray(Y), filled, strict=True):
    length = int((before > 0).sum())
    expected = -(-length // multiple) * multiple
    assert (after > 0).sum() == expected
    np.testing.assert_array_equal(after[:length], before[:length])
    assert (after[length:expected] == 1).all()


def test_real_mask_ends_at_the_first_eos():
  filled = masks.append_eos(Y, 4)
  np.testing.assert_array_equal(
    masks.real_mask(filled)[:, :5], masks.token_mask(Y)
  )


def test_masked_sum_of_both_ranks():
  values = jnp.arange(12.0).reshape(2, 3, 2)
  mask = jnp.array([[True, False, True], [False, False, False]])
  np.testing.assert_array_equal(
    masks.masked_sum(values, mask), [0 + 1 + 4 + 5, 0]
  )
  np.testing.assert_array_equal(
    masks.masked_sum(values[..., 0], mask), [0 + 4, 0]
  )
