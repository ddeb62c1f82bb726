"""What C and CUDA say differently: names of types and functions. The scalar language and its printer know no other
difference, so there is one expression and two printings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from telegrad.ir.types import DType


@dataclass(frozen=True, eq=False)
class Dialect:
    """One printing. ``types`` are the element types of arrays that kernels read and write.

    ``narrow`` has the 16-bit floats: held in float32 and rounded after every word, by the function named here, so that
    a value has the bits that its type says wherever it stands. What converts their elements in memory is called
    ``bfloat16_load``, ``bfloat16_store`` and so on.
    """

    types: Mapping[DType, str]
    float_words: Mapping[str, str]
    float_predicates: Mapping[str, str]
    infinity: str
    nan: str
    narrow: Mapping[DType, str] = field(default_factory=dict[DType, str])
    draws: bool = False
    """Whether kernels draw uniform random numbers themselves."""

    def local_type(self, dtype: DType) -> str:
        """The type of a local variable: truths are ints, as comparisons are, and 16-bit floats are float32."""
        if dtype in self.narrow:
            return "float"
        return "int" if dtype.kind == "bool" else self.types[dtype]
