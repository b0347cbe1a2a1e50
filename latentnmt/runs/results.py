"""One figure of a run, and the conditions that it holds under."""

from collections.abc import Mapping
import dataclasses
from typing import Any

# Fields that earlier versions wrote by another name.
_RENAMED = {"K": "samples"}


@dataclasses.dataclass(frozen=True)
class Result:
  """One evaluation of a run: a line of results.jsonl.

  A field that does not apply, or is not known, is None.

  Attributes:
    metric: what was measured, for example "bleu" or "nats_per_token".
    value: the figure.
    split: of the prepared data.
    step: of the checkpoint.
    method: name of the decoding method.
    batch_size: sentences decoded at once, of a speed.
    estimator: of a likelihood, for example "exact" or "iwae".
    samples: K, of an estimator that samples.
    length: "paid" or "given", of a likelihood.
    data: fingerprint of the prepared data.
    details: what else is known, by name: intervals, signatures, counts.
  """

  metric: str
  value: float
  split: str | None = None
  step: int | None = None
  method: str | None = None
  batch_size: int | None = None
  estimator: str | None = None
  samples: int | None = None
  length: str | None = None
  data: str | None = None
  details: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def key(self) -> tuple:
    """What a later result must share with this one to replace it."""
    return (
      self.metric, self.split, self.method, self.estimator, self.step,
      self.batch_size,
    )  # fmt: skip

  def get(self, name: str) -> Any:
    """Returns a field or a detail by its name, None where it is not there."""
    if name in _FIELDS:
      return getattr(self, name)
    return self.details.get(name)

  def as_row(self) -> dict[str, Any]:
    """Returns the line of results.jsonl: fields that are known, and details."""
    fields = {name: getattr(self, name) for name in _FIELDS}
    known = {k: v for k, v in fields.items() if v is not None}
    return {**known, **self.details}

  @classmethod
  def from_row(cls, row: Mapping[str, Any]) -> "Result":
    """Inverse of `as_row`; reads the lines of earlier versions, too."""
    row = {_RENAMED.get(name, name): value for name, value in row.items()}
    fields = {name: row.pop(name, None) for name in _FIELDS}
    return cls(**fields, details=row)


_FIELDS = tuple(
  field.name for field in dataclasses.fields(Result) if field.name != "details"
)
