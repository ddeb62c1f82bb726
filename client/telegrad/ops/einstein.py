"""Einstein's summation, written out in products of matrices, sums and moves of axes while the graph is built."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Generic, NamedTuple

from telegrad.errors import DTypeError, GraphError, ShapeError
from telegrad.ir.types import product
from telegrad.ir.value import V
from telegrad.ops import elementwise as e
from telegrad.ops.linalg import Matmul, diagonal
from telegrad.ops.reduce import Sum
from telegrad.ops.shape import moveaxis, permute_dims, reshape

__all__ = ["einsum"]

Labels = tuple[str, ...]
"""One label for each axis: a letter, or ".0", ".1", … for the axes under an ellipsis, counted from the last."""


class Term(NamedTuple, Generic[V]):
    """A value and the labels of its axes, no label twice."""

    value: V
    labels: Labels

    def size(self, label: str) -> int:
        """The size of the axis with this label, 1 if there is none."""
        return self.value.shape[self.labels.index(label)] if label in self.labels else 1

    @property
    def sizes(self) -> dict[str, int]:
        """The size of each label's axis."""
        return dict(zip(self.labels, self.value.shape, strict=True))


def einsum(subscripts: str, /, *operands: V) -> V:
    """The sum of products that the subscripts describe, as in NumPy: "ij,jk->ik" is the product of two matrices.

    One group of letters for each operand, a letter for each axis; "..." stands for any number of axes, which broadcast.
    Axes of one letter are multiplied elementwise, and summed if the letter is not in the output. Without "->" the
    output is "..." and then the letters that occur once, in alphabetical order. A letter twice in a group takes the
    diagonal. Pairs of operands are contracted as products of matrices, the pair with the smallest result first.
    """
    if not isinstance(subscripts, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise GraphError(f"einsum: the subscripts must be a string, not {type(subscripts).__name__}")
    if not operands:
        raise GraphError(f"einsum({subscripts!r:.80}): at least one operand is needed")
    values = e.common(*operands)
    if values[0].dtype.kind == "bool":
        raise DTypeError(f"einsum({subscripts!r:.80}): takes numbers; use astype")
    groups, output = _parsed(subscripts, values)
    _check_sizes(subscripts, groups, values)
    terms = [_diagonalised(value, labels) for value, labels in zip(values, groups, strict=True)]
    terms = _without_ones(terms)
    while len(terms) > 1:
        uses = Counter(label for term in terms for label in term.labels) + Counter(output)
        x, y = min(combinations(terms, 2), key=lambda pair: _result_size(*pair, uses))
        rest = [term for term in terms if term is not x and term is not y]
        terms = [*rest, _contracted(x, y, _kept(x, y, uses))]
    (last,) = (_summed(term, set(output)) for term in terms)
    return _arranged(last, output)


# ---- reading the subscripts


def _parsed(subscripts: str, values: Sequence[V]) -> tuple[list[Labels], Labels]:
    """The labels of each operand and of the output. GraphError, ShapeError for subscripts that do not fit."""
    text = subscripts.replace(" ", "")
    left, arrow, right = text.partition("->")
    groups = left.split(",")
    if len(groups) != len(values):
        raise GraphError(f"einsum({subscripts!r:.80}): {len(groups)} groups of letters for {len(values)} operands")
    labels = [_labels_of(subscripts, g, value.ndim, str(value.type)) for g, value in zip(groups, values, strict=True)]
    letters = [label for group in labels for label in group]
    dots = sorted({label for label in letters if label.startswith(".")}, key=lambda label: -int(label[1:]))
    if not arrow:
        once = sorted(label for label in set(letters) if not label.startswith(".") and letters.count(label) == 1)
        return labels, (*dots, *once)
    named = right.replace("...", "", 1)
    _check_letters(subscripts, named)
    if len(set(named)) != len(named):
        raise GraphError(f"einsum({subscripts!r:.80}): a letter stands twice in the output")
    unknown = sorted(set(named) - set(letters))
    if unknown:
        raise GraphError(f"einsum({subscripts!r:.80}): the output has {unknown[0]!r}, which no operand has")
    if "..." not in right:
        return labels, tuple(named)
    before, _, after = right.partition("...")
    return labels, (*before, *dots, *after)


def _labels_of(subscripts: str, group: str, rank: int, type: str) -> Labels:
    named = group.replace("...", "", 1)
    _check_letters(subscripts, named)
    extra = rank - len(named)
    if extra < 0 or (extra and named == group):
        raise ShapeError(f"einsum({subscripts!r:.80}): {group!r} names {len(named)} axes of a {type}")
    before, dots, after = group.partition("...")
    return (*before, *(f".{i}" for i in reversed(range(extra)) if dots), *after)


def _check_letters(subscripts: str, named: str) -> None:
    for letter in named:
        if not (letter.isascii() and letter.isalpha()):
            raise GraphError(
                f"einsum({subscripts!r:.80}): {letter!r} is neither a letter, nor part of ',', '...' or '->'"
            )


def _check_sizes(subscripts: str, groups: Sequence[Labels], values: Sequence[V]) -> None:
    """Raise ShapeError unless axes with one label have one size, or 1."""
    sizes: dict[str, int] = {}
    for labels, value in zip(groups, values, strict=True):
        for label, size in zip(labels, value.shape, strict=True):
            known = sizes.setdefault(label, size)
            if known != size and 1 not in (known, size):
                name = "'...'" if label.startswith(".") else repr(label)
                raise ShapeError(f"einsum({subscripts!r:.80}): axes {name} have sizes {known} and {size}")
            sizes[label] = size if known == 1 else known


# ---- computing


def _diagonalised(value: V, labels: Labels) -> Term[V]:
    """Every label once: of axes with the same label the diagonal."""
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            if value.shape[i] != value.shape[j]:  # one of them is 1, and repeated
                drop = i if value.shape[i] == 1 else j
                value = reshape(value, (*value.shape[:drop], *value.shape[drop + 1 :]))
                labels = (*labels[:drop], *labels[drop + 1 :])
                continue
            value = diagonal(moveaxis(value, (i, j), (-2, -1)))
            labels = (*labels[:i], *labels[i + 1 : j], *labels[j + 1 :], label)
    return Term(value, labels)


def _without_ones(terms: list[Term[V]]) -> list[Term[V]]:
    """The terms without axes of size 1 that another term has in full, along which they are the same everywhere."""
    found: list[Term[V]] = []
    for term in terms:
        labels = tuple(x for x in term.labels if term.size(x) != 1 or all(other.size(x) == 1 for other in terms))
        found.append(Term(reshape(term.value, tuple(term.size(x) for x in labels)), labels))
    return found


def _kept(x: Term[V], y: Term[V], uses: Counter[str]) -> set[str]:
    """The labels of a pair that others need too, ``uses`` being how often each is used in all."""
    return {label for label in {*x.labels, *y.labels} if uses[label] > (label in x.labels) + (label in y.labels)}


def _result_size(x: Term[V], y: Term[V], uses: Counter[str]) -> int:
    kept = _kept(x, y, uses)
    return product(size for label, size in (x.sizes | y.sizes).items() if label in kept)


def _summed(term: Term[V], kept: set[str]) -> Term[V]:
    """The sum over all axes whose label is not kept."""
    axes = tuple(i for i, label in enumerate(term.labels) if label not in kept)
    if not axes:
        return term
    return Term(Sum(axes)(term.value), tuple(label for label in term.labels if label in kept))


def _contracted(x: Term[V], y: Term[V], kept: set[str]) -> Term[V]:
    """The product of two terms, summed over the labels that are not kept."""
    x, y = _summed(x, kept | set(y.labels)), _summed(y, kept | set(x.labels))
    shared = [label for label in x.labels if label in y.labels]
    batch = [label for label in shared if label in kept]
    inner = [label for label in shared if label not in kept]
    left = [label for label in x.labels if label not in shared]
    right = [label for label in y.labels if label not in shared]
    labels = (*batch, *left, *right)
    if not inner:
        return Term(_aligned(x, labels) * _aligned(y, labels), labels)
    sizes = x.sizes | y.sizes
    lead, n = tuple(sizes[label] for label in batch), product(sizes[label] for label in inner)
    rows, columns = (tuple(sizes[label] for label in side) for side in (left, right))
    a = reshape(_arranged(x, (*batch, *left, *inner)), (*lead, product(rows), n))
    b = reshape(_arranged(y, (*batch, *inner, *right)), (*lead, n, product(columns)))
    return Term(reshape(Matmul()(a, b), (*lead, *rows, *columns)), labels)


def _arranged(term: Term[V], labels: Labels) -> V:
    """The value with its axes in the order of the labels."""
    return permute_dims(term.value, tuple(term.labels.index(label) for label in labels))


def _aligned(term: Term[V], labels: Labels) -> V:
    """The value with its axes in the order of the labels and axes of size 1 where it has none."""
    own = tuple(label for label in labels if label in term.labels)
    return reshape(_arranged(term, own), tuple(term.size(label) for label in labels))
