"""The scalar language and the array module: what ops may ask of an executor."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

import numpy as np
import pytest
import telegrad
from telegrad.ir.xp import SCALAR_LANGUAGE, ArrayModule, ScalarModule
from telegrad.ops import registry
from telegrad.ops.elementwise import Cast, Elementwise

from tests.ops.checks import XP
from tests.ops.registry import FACTS, Facts, Sample
from tests.ops.registry.tiers import sample_rows


class Symbol:
    """An expression in the scalar language. It has no operators, so an ``eval`` can only use words."""

    def __init__(self, text: str) -> None:
        self.text = text


class Recorder:
    """A scalar module that writes down what it is asked for."""

    def __getattr__(self, word: str) -> Any:
        if word not in SCALAR_LANGUAGE:
            raise AttributeError(f"{word} is no word of the scalar language")

        def say(*operands: Any) -> Symbol:
            return Symbol(f"{word}({', '.join(x.text if isinstance(x, Symbol) else repr(x) for x in operands)})")

        return say


def is_scalar(facts: Facts, sample: Sample) -> bool:
    return isinstance(sample.op, Elementwise | Cast)


@pytest.mark.parametrize("row", sample_rows(is_scalar))
def test_elementwise_ops_are_expressions_in_the_scalar_language(row: Sample) -> None:
    names = [Symbol(f"x{i}") for i in range(len(row.operands))]

    expression = row.op.eval(Recorder(), *names)

    assert isinstance(expression, Symbol) and "x0" in expression.text


@pytest.mark.parametrize("row", sample_rows(is_scalar))
def test_the_expression_read_back_computes_the_same(row: Sample) -> None:
    arrays = row.arrays
    expression = row.op.eval(Recorder(), *[Symbol(f"x{i}") for i in range(len(arrays))])
    scope = {word: getattr(XP, word) for word in SCALAR_LANGUAGE}
    scope |= {f"x{i}": a for i, a in enumerate(arrays)} | {"telegrad": telegrad}

    with np.errstate(all="ignore"):
        found = eval(expression.text, {"__builtins__": {}}, scope)
        direct = row.op.eval(XP, *arrays)

    assert np.asarray(found).tobytes() == np.asarray(direct).tobytes() and found.dtype == direct.dtype


def test_an_eval_outside_of_the_language_is_noticed() -> None:
    class Outside:
        def eval(self, xp: Any, x: Any) -> Any:
            return xp.sum(x, axis=(0,))

    with pytest.raises(AttributeError, match="no word of the scalar language"):
        Outside().eval(Recorder(), Symbol("x"))
    with pytest.raises(TypeError):
        Symbol("x") + Symbol("y")  # type: ignore[operator]


def words(protocol: type) -> set[str]:
    return {name for name in dir(protocol) if not name.startswith("_")}


def test_the_numpy_module_has_every_word() -> None:
    assert {word for word in words(ArrayModule) if not callable(getattr(XP, word, None))} == set()
    assert words(ScalarModule) == SCALAR_LANGUAGE


def test_no_op_asks_for_a_word_that_the_array_module_lacks() -> None:
    used: set[str] = set()
    for cls in registry().values():
        for method in ("eval", "of_shifted"):
            function = getattr(cls, method, None)
            if function is not None:
                tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
                used |= {
                    node.attr
                    for node in ast.walk(tree)
                    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "xp"
                }

    assert used - words(ArrayModule) == set()
    assert words(ArrayModule) - SCALAR_LANGUAGE - used == set(), "words that no op uses any more"


def test_the_words_say_how_many_operands_there_are() -> None:
    for name, cls in registry().items():
        if issubclass(cls, Elementwise):
            assert cls.arity == len(FACTS[name].samples[0].operands), name
