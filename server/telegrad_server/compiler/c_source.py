"""The C of a group's kernel: loops over rows, and in each the levels between one reduction and the next.

A kernel is called for a range of *units*, equal pieces of its rows that threads may share: ``p`` holds the addresses of
operands, results, and room for partial sums. How many units there are, and in which order anything is added up, follows
from types alone. Where a value of a row is needed after a reduction it is kept in a buffer; a loop without reductions
has none. Sums over columns are added up row after row, a partial sum for each unit, and these in order by ``_end``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from telegrad.ir import types as t
from telegrad.ir.types import DType
from telegrad.ir.value import Node, Value
from telegrad.ops.elementwise import Constant
from telegrad.ops.reduce import Sum

from telegrad_server.compiler.expressions import C_TYPES, Term, Writer, constant, printed
from telegrad_server.compiler.fused import Fused
from telegrad_server.compiler.layout import Strides
from telegrad_server.compiler.nest import Access, Nest
from telegrad_server.compiler.trips import UNIT_ROWS

UNIT_ELEMENTS = 8192
"""What a unit has at least where there are rows enough: 32 KiB of each operand."""

MOST_PARTIALS, PARTIAL_ROWS = 16, 64
"""Partial sums of columns: at most so many, each of at least so many rows."""


class Kernel(NamedTuple):
    """A kernel's text, in which its name is KERNEL, and how to call it."""

    text: str
    units: int
    partials: tuple[int, ...]
    """The bytes of each array of partial sums."""

    elements: int
    """The elements of its index space times its ops: how much work it is."""

    is_by_rows: bool
    """Whether a unit is `UNIT_ROWS` rows of a trip that is cut by rows."""


def kernel(op: Fused, strides: Sequence[Strides], *, rows: int = 0) -> Kernel:
    """The kernel for a group whose operands are laid out so, in elements. With ``rows`` it is of a trip that is cut by
    so many, and is cut as the trip is where it can be."""
    return _kernel(op, tuple(strides), rows)


@lru_cache(maxsize=1 << 12)
def _kernel(op: Fused, strides: tuple[Strides, ...], rows: int) -> Kernel:
    return _Printer(op, strides).kernel(rows)


class _Printer:
    """Prints one kernel."""

    def __init__(self, op: Fused, strides: tuple[Strides, ...]) -> None:
        self._nest = Nest(op, strides)

    def kernel(self, rows: int) -> Kernel:
        """The kernel, cut by so many rows of a trip where it can be."""
        nest = self._nest
        op, body = nest.op, nest.body
        sums = [node for node in nest.nodes if nest.is_column_sum(node)]
        is_by_rows = rows > 0 and not sums and (nest.is_flat or (op.size // rows) % nest.inner == 0)
        if is_by_rows:
            units = -(-rows // UNIT_ROWS)
            per_unit = UNIT_ROWS * (op.size // rows) // (1 if nest.is_flat else nest.inner)
        elif nest.is_flat:
            units, per_unit = -(-op.size // UNIT_ELEMENTS), UNIT_ELEMENTS
        elif sums:
            units = 1 if nest.rows <= PARTIAL_ROWS else min(MOST_PARTIALS, -(-nest.rows // PARTIAL_ROWS))
            per_unit = -(-nest.rows // units)
            units = -(-nest.rows // per_unit)
        else:
            per_unit = max(1, UNIT_ELEMENTS // nest.inner)
            units = -(-nest.rows // per_unit)
        self._writer = Writer()
        self._terms: dict[Value, Term] = {}
        self._buffers: dict[Value, str] = {}
        self._declared: list[str] = []
        self._pointers: dict[Access, str] = {}
        self._scalars: dict[Access, Term] = {}
        self._head: list[str] = []
        self._result = {v: len(body.inputs) + k for k, v in enumerate(body.outputs)}
        self._partial = {
            Value(node): self._result[Value(node)] if units == 1 else len(body.inputs) + len(body.outputs) + k
            for k, node in enumerate(sums)
        }
        inside = self._row_text()
        q = nest.columns
        lines = ["void KERNEL(char *const *p, long first, long last) {", *self._declared]
        lines.append("for (long u = first; u < last; u++) {")
        if nest.is_flat:
            lines.append(
                f"long from = u * {per_unit}, end = from + {per_unit} < {op.size} ? from + {per_unit} : {op.size};"
            )
        else:
            for node in sums:
                k = self._partial[Value(node)]
                lines.append(f"float *s{k} = (float *)p[{k}] + u * {q};")
                lines.append(f"for (long c = 0; c < {q}; c++) s{k}[c] = 0.0f;")
            lines.append(f"long end = (u + 1) * {per_unit} < {nest.rows} ? (u + 1) * {per_unit} : {nest.rows};")
            lines.append(f"for (long r = u * {per_unit}; r < end; r++) {{")
        lines += [*self._head, *inside, "}" if nest.is_flat else "}\n}", "}"]
        lines.append("void KERNEL_end(char *const *p, long first, long last) {")
        if sums and units > 1:
            for node in sums:
                k, out = self._partial[Value(node)], self._result[Value(node)]
                lines.append(f"float *y{k} = (float *)p[{out}], *s{k} = (float *)p[{k}];")
                lines.append(f"for (long c = 0; c < {q}; c++) y{k}[c] = s{k}[c];")
                lines.append(f"for (long u = 1; u < {units}; u++)\n#pragma omp simd")
                lines.append(f"for (long c = 0; c < {q}; c++) y{k}[c] += s{k}[u * {q} + c];")
        lines.append("}")
        partials = (4 * q * units,) * (len(sums) if units > 1 else 0)
        return Kernel("\n".join(lines) + "\n", units, partials, op.size * len(nest.nodes), is_by_rows)

    def _row_text(self) -> list[str]:
        nest = self._nest
        lines: list[str] = []
        for level in range(max(nest.level.values(), default=0) + 1):
            scalars = [n for n in nest.nodes if nest.level[Value(n)] == level and nest.is_row(Value(n))]
            for node in scalars:
                if not nest.is_reduction(node):
                    self._writer.lines = lines
                    self._print(node, lines, {})
                    self._store_row(node, lines)
            self._loop(level, lines)
            for node in nest.nodes:
                if nest.is_reduction(node) and not nest.is_column_sum(node) and nest.level[Value(node)] == level + 1:
                    self._reduce(node, lines)
                    self._store_row(node, lines)
        return lines

    def _store_row(self, node: Node, lines: list[str]) -> None:
        out = Value(node)
        if out in self._result:
            lines.append(f"(({C_TYPES[out.dtype]} *)p[{self._result[out]}])[r] = {self._terms[out].text};")

    def _reduce(self, node: Node, lines: list[str]) -> None:
        nest = self._nest
        x = nest.source(node.inputs[0])
        word = "row_sum" if isinstance(node.op, Sum) else "row_max"
        if x in nest.number:
            access = nest.access[node.inputs[0], node.inputs[0].shape]
            if self._inner_index(access) == "c":
                where = self._pointer(access)
            else:
                where = self._new_buffer(t.float32)
                lines.append(f"for (long c = 0; c < {nest.inner}; c++) {where}[c] = {self._element(access)};")
        else:
            where = self._buffers[x]
        self._writer.lines = lines
        self._terms[Value(node)] = self._writer.local(f"{word}({where}, {nest.inner})", t.float32)

    def _loop(self, level: int, lines: list[str]) -> None:
        """The loop over the elements of a row at one level."""
        nest = self._nest
        nodes = [n for n in nest.nodes if nest.level[Value(n)] == level and not nest.is_row(Value(n))]
        if not nodes:
            return
        inside: list[str] = []
        local: dict[Value | Access, Term] = {}
        self._writer.lines = inside
        for node in nodes:
            if nest.is_column_sum(node):
                term = self._operand(node.inputs[0], node, inside, local)
                k = self._partial[Value(node)]
                inside.append(f"s{k}[c] += {term.text};")
                continue
            self._print(node, inside, local)
            out = Value(node)
            term = local[out]
            buffer = ""
            if any(nest.level[Value(u)] > level or (nest.is_row_reduction(u)) for u in nest.users.get(out, [])):
                buffer = self._buffers[out] = self._row_of(out) if out in self._result else self._new_buffer(out.dtype)
            elif out in self._result:
                buffer = self._row_of(out)
            if buffer:
                inside.append(f"{buffer}[c] = {term.text};")
        begin = "from; c < end" if nest.is_flat else f"0; c < {nest.inner}"
        lines += ["#pragma omp simd", f"for (long c = {begin}; c++) {{", *inside, "}"]

    def _print(self, node: Node, lines: list[str], local: dict[Value | Access, Term]) -> None:
        out = Value(node)
        terms = [self._operand(v, node, lines, local) for v in node.inputs]
        term = printed(node.op, self._writer, terms)
        if self._nest.is_row(out):
            self._terms[out] = term
        else:
            local[out] = term

    def _operand(self, v: Value, node: Node, lines: list[str], local: dict[Value | Access, Term]) -> Term:
        nest = self._nest
        source = nest.source(v)
        if isinstance(source.node.op, Constant):
            return constant(source.node.op.value, source.dtype)
        if source in self._terms:
            return self._terms[source]
        if source in nest.number:
            access = nest.access[v, nest.shape_of_use(node)]
            if access.is_row or self._inner_index(access) == "0":
                return self._scalar(access)
            if access not in local:
                local[access] = self._writer.local_in(lines, self._element(access), access.dtype)
            return local[access]
        if source not in local:
            local[source] = self._writer.local_in(lines, f"{self._buffers[source]}[c]", source.dtype)
        return local[source]

    def _scalar(self, access: Access) -> Term:
        """An operand that has one element for the row, read before its first loop."""
        found = self._scalars.get(access)
        if found is None:
            found = self._scalars[access] = self._writer.local_in(
                self._head, f"{self._pointer(access)}[0]", access.dtype
            )
        return found

    def _new_buffer(self, dtype: DType) -> str:
        name = f"b{len(self._declared)}"
        self._declared.append(f"{C_TYPES[dtype]} {name}[{self._nest.inner}] __attribute__((aligned(64)));")
        return name

    def _row_of(self, out: Value) -> str:
        """A pointer to the row of a result."""
        nest = self._nest
        k = self._result[out]
        at = "" if nest.is_flat else f" + r * {nest.inner}"
        line = f"{C_TYPES[out.dtype]} *y{k} = ({C_TYPES[out.dtype]} *)p[{k}]{at};"
        if line not in self._head:
            self._head.append(line)
        return f"y{k}"

    def _pointer(self, access: Access) -> str:
        """A pointer to the operand's first element of the row."""
        nest = self._nest
        if access not in self._pointers:
            name = self._pointers[access] = f"a{len(self._pointers)}"
            type = C_TYPES[access.dtype]
            steps = [f"(const {type} *)p[{access.number}]"]
            for unit, size, stride in zip(nest.units, nest.sizes, access.strides, strict=True):
                if unit >= nest.inner and stride and not nest.is_flat:
                    per = unit // nest.inner
                    at = "r" if per == 1 else f"r / {per}"
                    at = at if unit * size == nest.op.size else f"{at} % {size}"
                    steps.append(f"({at}) * {stride}L")
            self._head.append(f"const {type} *{name} = {' + '.join(steps)};")
        return self._pointers[access]

    def _element(self, access: Access) -> str:
        return f"{self._pointer(access)}[{self._inner_index(access)}]"

    def _inner_index(self, access: Access) -> str:
        """Where the element of the loop is, counted from the row's first."""
        nest = self._nest
        steps: list[str] = []
        inner = [
            d for d in zip(nest.units, nest.sizes, access.strides, strict=True) if nest.is_flat or d[0] < nest.inner
        ]
        for unit, size, stride in inner:
            if stride:
                at = "c" if unit == 1 else f"c / {unit}"
                at = at if unit * size == (nest.op.size if nest.is_flat else nest.inner) else f"{at} % {size}"
                steps.append(at if at == "c" and stride == 1 else f"({at}) * {stride}L")
        return " + ".join(steps) or "0"
