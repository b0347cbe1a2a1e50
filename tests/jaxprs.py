"""What a jaxpr computes, for tests of how and not of what."""

import jax


def equations(jaxpr):
  """All equations in a jaxpr, at any depth."""
  for equation in jaxpr.eqns:
    yield equation
    for value in jax.tree.leaves(tuple(equation.params.values())):
      inner = getattr(value, "jaxpr", value)
      if hasattr(inner, "eqns"):
        yield from equations(inner)


def shapes(jaxpr):
  """Shapes of all that equations in a jaxpr make, at any depth."""
  for equation in equations(jaxpr):
    yield from (v.aval.shape for v in equation.outvars)
