import functools

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxprs import equations, shapes
import numpy as np
import pytest

from latentnmt import config as cfg
from latentnmt import testing
from latentnmt.bijections import (
  ActNorm,
  Chain,
  Coupling,
  Invertible1x1,
  MultiScale,
  Repeat,
  Squeeze,
  glow,
)
from latentnmt.errors import InputError
from latentnmt.masks import length_mask
from latentnmt.priors import FlowPrior
from latentnmt.types import Source

KEY = jax.random.key(0)

small = functools.partial(Coupling, hidden=8, heads=2)


def tiny_glow(channels):
  config = cfg.FlowPriorConfig((2, 1), ("t", "a"), hidden=8, heads=2)
  return glow(config, channels)


# name: (constructor, C, length multiple)
BIJECTIONS = {
  "actnorm": (ActNorm, 3, 1),
  "1x1_alternate": (lambda: Invertible1x1("a"), 36, 1),
  "1x1_contiguous": (lambda: Invertible1x1("c"), 36, 1),
  "affine": (lambda: small(8, "a"), 8, 1),
  "additive": (lambda: small(8, "c", affine=False), 8, 1),
  "rounded": (lambda: small(8, "t", matmul_dtype="bfloat16"), 8, 2),
  "squeeze": (lambda: Squeeze(small(8, "t")), 4, 4),
  "chain": (lambda: Chain((ActNorm(), Invertible1x1(), small(8))), 8, 1),
  "repeat": (lambda: Repeat(Chain((small(8), ActNorm())), 3), 8, 1),
  "remat": (lambda: Repeat(Invertible1x1("a"), 3, remat=True), 4, 1),
  "multi_scale": (
    lambda: MultiScale((ActNorm(), Invertible1x1(), small(4, "t"))), 4, 8,
  ),
}  # fmt: skip


@pytest.mark.parametrize("name", BIJECTIONS)
def test_contract(name):
  make, channels, multiple = BIJECTIONS[name]
  assert getattr(make(), "length_multiple", 1) == multiple
  testing.check_bijection(make(), jax.random.key(1), channels=channels)


class Scale(nn.Module):
  """z = 2 e, for broken copies to be made of."""

  def forward(self, e, mask, source):
    return 2 * e, self._log_det(e, mask)

  def inverse(self, z, mask, source):
    return z / 2, -self._log_det(z, mask)

  def _log_det(self, x, mask):
    return x.shape[-1] * jnp.log(2.0) * jnp.sum(mask, 1, dtype=jnp.float32)


class NoInverse(Scale):
  def inverse(self, z, mask, source):
    return z / 3, -self._log_det(z, mask)


class WrongLogDet(Scale):
  def _log_det(self, x, mask):
    return 2 * super()._log_det(x, mask)


class UnequalLogDets(Scale):
  def forward(self, e, mask, source):
    return 2 * e, 1 + self._log_det(e, mask)


class SeesPadding(Scale):
  def _log_det(self, x, mask):
    return super()._log_det(x, jnp.ones_like(mask))


class SeesOtherRows(Scale):
  def forward(self, e, mask, source):
    return 2 * e + jnp.roll(e[:, :1], 1, axis=0).at[0].set(0), 0 * e[:, 0, 0]

  def inverse(self, z, mask, source):
    rows = [z[0] / 2]
    for row in z[1:]:
      rows.append((row - rows[-1][:1]) / 2)
    return jnp.stack(rows), 0 * z[:, 0, 0]


@pytest.mark.parametrize(
  "broken, message",
  [
    (NoInverse, "does not undo"),
    (WrongLogDet, "Jacobian"),
    (UnequalLogDets, "minus"),
    (SeesPadding, "padding|Jacobian"),
    (SeesOtherRows, "other rows"),
  ],
)
def test_the_check_catches(broken, message):
  testing.check_bijection(Scale(), KEY)
  with pytest.raises(AssertionError, match=message):
    testing.check_bijection(broken(), KEY)


def ten_by_three(channels, lengths=(16, 12, 4, 8)):
  """Latents of N(10, 3^2), their mask, and a source."""
  lengths = jnp.array(lengths * 4)
  mask = length_mask(lengths, 16)
  z = 10 + 3 * jax.random.normal(KEY, (*mask.shape, channels))
  states = jax.random.normal(KEY, (len(mask), 3, 4))
  return z, mask, Source(states, jnp.ones((len(mask), 3), bool))


@pytest.fixture(scope="module")
def initialised():
  """A flow of three levels, its parameters, and what they came from."""
  plans = ("c", "at", "c")
  flow = glow(cfg.FlowPriorConfig((2, 3, 1), plans, hidden=8, heads=2), 8)
  data = ten_by_three(8)
  init = jax.jit(functools.partial(flow.init, method="inverse"))
  return flow, init(KEY, *data), data


def test_every_normalisation_whitens_the_batch_it_starts_from(initialised):
  flow, params, (z, mask, source) = initialised
  seen = []

  def spy(call, args, kwargs, context):
    out = call(*args, **kwargs)
    if isinstance(context.module, ActNorm) and context.method_name == "inverse":
      jax.debug.callback(
        lambda e, mask: seen.append(np.asarray(e)[mask]), out[0], args[1]
      )
    return out

  with nn.intercept_methods(spy):
    apply = jax.jit(functools.partial(flow.apply, method="inverse"))
    e, _ = apply(params, z, mask, source)
  jax.effects_barrier()
  assert len(seen) == 2 * 1 + 3 * 2 + 1 * 1
  for normalised in seen:
    np.testing.assert_allclose(normalised.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(normalised.var(axis=0), 1, atol=1e-4)
  assert abs(e[mask].mean()) < 0.2 and 0.5 < e[mask].std() < 1


def test_a_glow_is_undone(initialised):
  flow, params, (z, mask, source) = initialised

  @jax.jit
  def there_and_back(params):
    bound = flow.bind(testing.perturb(params, KEY))
    e, log_det = bound.inverse(z, mask, source)
    return *bound.forward(e, mask, source), log_det

  back, log_det, log_det_inverse = there_and_back(params)
  np.testing.assert_allclose(back[mask], z[mask], rtol=1e-4)
  np.testing.assert_allclose(log_det, -log_det_inverse, rtol=1e-4)


def test_each_repetition_starts_by_itself(initialised):
  _, params, _ = initialised
  for leaf in jax.tree.leaves(params["params"]["levels_1"]["bijections_1"]):
    assert leaf.shape[0] == 3
  steps = params["params"]["levels_1"]["bijections_1"]["inner"]
  weight = steps["bijections_3"]["factors"]["weight"]
  assert (weight[0] != weight[1]).any() and (weight[1] != weight[2]).any()


def test_a_batch_of_nothing_leaves_the_identity():
  z, mask, source = ten_by_three(4)
  none = jnp.zeros_like(mask)
  params = ActNorm().init(KEY, z, none, source, method="inverse")
  e, log_det = ActNorm().apply(params, z, mask, source, method="inverse")
  np.testing.assert_array_equal(e, z)
  assert not log_det.any()


def test_neither_direction_factorises_a_matrix(initialised):
  flow, params, data = initialised
  found = {}
  for method in ("forward", "inverse"):
    apply = functools.partial(flow.apply, method=method)
    jaxpr = jax.make_jaxpr(apply)(params, *data).jaxpr
    found[method] = {each.primitive.name for each in equations(jaxpr)}
    assert "scan" in found[method]
    for name in found[method]:
      assert not name.startswith(("lu", "qr", "geqrf", "householder", "eig"))
      assert not name.startswith(("svd", "cholesky", "custom_linear"))
  assert "triangular_solve" in found["forward"]
  assert "triangular_solve" not in found["inverse"]


def test_matrices_are_factorised_and_solved_one_at_a_time():
  """Two batches of them at once wait for each other on a CPU, for ever."""
  z, mask, source = ten_by_three(64)  # two heads
  conv = Invertible1x1("c")
  init = functools.partial(conv.init, method="forward")
  found = [
    (equation.primitive.name, equation.invars[0].aval.ndim)
    for equation in equations(jax.make_jaxpr(init)(KEY, z, mask, source).jaxpr)
    if equation.primitive.name in ("lu", "geqrf", "qr", "triangular_solve")
  ]
  assert {"lu", "triangular_solve"} < {name for name, _ in found}
  assert {ndim for _, ndim in found} == {2}


def test_samples_share_one_copy_of_the_sources_keys_and_values():
  prior = FlowPrior(tiny_glow(8), 8)
  source = Source(jnp.ones((2, 13, 16)), jnp.ones((2, 13), bool))
  mask = jnp.ones((2, 12), bool)
  z = jnp.ones((11, 2, 12, 8))
  init = functools.partial(prior.init, method="log_prob")
  params = jax.eval_shape(init, KEY, z[0], mask, source)

  def log_prob(params, z):
    def one(z):
      return prior.apply(params, z, mask, source, method="log_prob")

    return jax.vmap(one)(z)

  made = set(shapes(jax.make_jaxpr(log_prob)(params, z).jaxpr))
  # Keys [.., B, H, D/H, S] and values [.., B, H, S, D/H] of two heads, widths 4
  # and 8; never with the 11 samples.
  keys = [s for s in made if s[-4:] in ((2, 2, 2, 13), (2, 2, 4, 13))]
  values = [s for s in made if s[-4:-1] == (2, 2, 13)]
  assert {s[-2] for s in keys} == {s[-1] for s in values} == {2, 4}
  for found in keys, values:
    assert {s[0] for s in found if len(s) == 5} == {1, 2}
    assert not any(11 in s for s in found)


def test_a_permutation_and_signs_are_not_trained():
  z, mask, source = ten_by_three(8)
  conv = Invertible1x1("a")
  params = conv.init(KEY, z, mask, source, method="inverse")

  def loss(params):
    e, log_det = conv.apply(params, z, mask, source, method="inverse")
    return jnp.sum(e**3) + jnp.sum(log_det)

  gradient = jax.grad(loss)(params)["params"]["factors"]
  assert not gradient["order"].any() and not gradient["sign"].any()
  assert gradient["weight"].all()


def test_a_rotation_at_the_start_keeps_lengths():
  z, mask, source = ten_by_three(64)
  for layout in "ac":
    e, log_det = Invertible1x1(layout).init_with_output(
      KEY, z, mask, source, method="inverse"
    )[0]
    np.testing.assert_allclose((e**2).sum(-1), (z**2).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(log_det, 0, atol=1e-3)


def test_heads_hold_alternate_or_contiguous_channels():
  z, mask, source = ten_by_three(64)
  for layout, channel in (("a", 2), ("c", 1)):
    conv = Invertible1x1(layout)
    params = conv.init(KEY, z, mask, source, method="inverse")
    e = functools.partial(conv.apply, params, method="inverse")
    moved = e(z.at[..., 0].add(1.0), mask, source)[0] - e(z, mask, source)[0]
    moved = np.flatnonzero(jnp.abs(moved).max(axis=(0, 1)) > 0)
    np.testing.assert_array_equal(moved, channel * np.arange(32))


@pytest.mark.parametrize("layout", "ac")
def test_prepared_inverses_do_what_solving_does(layout):
  z, mask, source = ten_by_three(64)
  convs = Repeat(Invertible1x1(layout), 3)
  variables = convs.init(KEY, z, mask, source, method="inverse")
  variables = testing.perturb(variables, KEY, 0.1)
  (e, _), prepared = convs.apply(
    variables, z, mask, source, method="inverse", mutable=["inference"]
  )
  assert prepared["inference"]["inner"]["inverse"].shape == (3, 2, 32, 32)
  inverted = {**variables, **prepared}
  forward = functools.partial(convs.apply, method="forward")
  (back, log_det), solved = (
    forward(v, e, mask, source) for v in (inverted, variables)
  )
  np.testing.assert_allclose(back, z, atol=5e-4)
  chex.assert_trees_all_close((back, log_det), solved, atol=5e-4)
  jaxpr = jax.make_jaxpr(forward)(inverted, e, mask, source).jaxpr
  names = {equation.primitive.name for equation in equations(jaxpr)}
  assert "scan" in names and "triangular_solve" not in names


@pytest.mark.parametrize("split", "cat")
def test_a_coupling_starts_constant_and_keeps_its_first_half(split):
  z, mask, source = ten_by_three(8)
  coupling = small(8, split)
  params = coupling.init(KEY, z, mask, source, method="inverse")
  e, log_det = coupling.apply(params, z, mask, source, method="inverse")
  ratio = np.asarray(e / z)
  halves = {
    "c": (ratio[..., :4], ratio[..., 4:]),
    "a": (ratio[..., ::2], ratio[..., 1::2]),
    "t": (ratio[:, ::2], ratio[:, 1::2]),
  }
  kept, moved = halves[split]
  start = 1 / (1 + np.exp(-2.0))
  np.testing.assert_array_equal(kept, 1)
  np.testing.assert_allclose(moved, start, rtol=1e-5)
  expected = np.asarray(mask).sum(axis=1) * 4 * np.log(start)
  np.testing.assert_allclose(log_det, expected, rtol=1e-5)


@pytest.mark.parametrize(
  "settings, message", [((6,), "channels=6"), ((4, "x"), "split='x'")]
)
def test_a_coupling_refuses(settings, message):
  with pytest.raises(InputError, match=message):
    Coupling(*settings)


@pytest.mark.parametrize(
  "steps, plans, multiple",
  [
    ((4, 8, 8), ("cat", "cat", "ca"), 4),
    ((1, 1, 1), ("cat", "cat", "cat"), 8),
    ((1,), ("ca",), 1),
    ((1,), ("t",), 2),
    ((2, 2), ("c", "a"), 2),
  ],
)
def test_length_multiple_of_a_glow(steps, plans, multiple):
  flow = glow(cfg.FlowPriorConfig(steps, plans), 8)
  assert FlowPrior(flow, 8).length_multiple == multiple
