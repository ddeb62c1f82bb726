"""The CUDA of a group's kernel: the loops and expressions of `c_source`, shared among threads by `cuda_shape`.

Arrays are arguments: operands, results, and room for partial sums. Elements are read and written 16 bytes at a time
where layouts allow. No atomics: which thread adds what, and in which order, follows from shapes. What a row's values
need after a reduction stays in the thread's registers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from telegrad.ir import types as t
from telegrad.ir.types import DType
from telegrad.ir.value import Node, Value
from telegrad.ops.elementwise import Constant
from telegrad.ops.random import RandomUniform
from telegrad.ops.reduce import Sum

from telegrad_server.compiler.cuda_shape import Form, form
from telegrad_server.compiler.cuda_words import CUDA
from telegrad_server.compiler.expressions import Term, Writer, constant, printed
from telegrad_server.compiler.fused import Fused
from telegrad_server.compiler.layout import Strides
from telegrad_server.compiler.nest import Access, Nest

END_THREADS = 128


class Launch(NamedTuple):
    """A kernel of a text: what its name ends with, the blocks in x and y, and the threads of each."""

    suffix: str
    grid: tuple[int, int]
    block: int


class CudaKernel(NamedTuple):
    """A kernel's text, in which its name is KERNEL, and how to start it."""

    text: str
    launches: tuple[Launch, ...]
    """One, or two where partial sums are added up. All take the same arguments."""

    partials: tuple[int, ...]
    """The bytes of each array of partial sums."""

    aligned: tuple[bool, ...]
    """Which operands must begin at a multiple of 16 bytes. Results always do."""


def cuda_kernel(op: Fused, strides: Sequence[Strides], aligned: Sequence[bool]) -> CudaKernel:
    """The kernel for a group whose operands are laid out so, in elements; ``aligned`` are those that begin at a
    multiple of 16 bytes."""
    return _kernel(op, tuple(strides), tuple(aligned))


@lru_cache(maxsize=1 << 12)
def _kernel(op: Fused, strides: tuple[Strides, ...], aligned: tuple[bool, ...]) -> CudaKernel:
    return _Printer(op, strides, aligned).kernel()


class _Printer:
    """Prints one kernel."""

    def __init__(self, op: Fused, strides: tuple[Strides, ...], aligned: tuple[bool, ...]) -> None:
        self._nest = nest = Nest(op, strides)
        self._form: Form = form(nest)
        self._aligned = aligned
        self._promised: set[int] = set()
        self._writer = Writer(CUDA)
        self._terms: dict[Value, Term] = {}  # of rows
        self._held: dict[Value, str] = {}  # what stays in registers from one level to the next
        self._scalars: dict[Access, Term] = {}
        self._head: list[str] = []  # at the begin of a row
        self._top: list[str] = []  # at the begin of the kernel
        self._result = {v: len(op.body.inputs) + k for k, v in enumerate(op.body.outputs)}
        self._sums = [node for node in nest.nodes if nest.is_column_sum(node)]
        self._first_partial = len(op.body.inputs) + len(op.body.outputs)
        self._is_flat = not op.length and not nest.columns

    # ---- the whole

    def kernel(self) -> CudaKernel:
        """The kernel."""
        f, nest = self._form, self._nest
        inside = self._row_text()
        has_partials = bool(self._sums) and f.units > 1
        lines = [_head("KERNEL", f.block, self._parameters(has_partials))]
        lines += self._top
        if self._is_flat:
            lines += [*self._head, *inside, "}"]
        else:
            lines.append(f"const int lane = threadIdx.x % {f.threads};")
            lines.append(f"const {f.word} u = ({f.word})blockIdx.x * {f.at_once} + threadIdx.x / {f.threads};")
            if f.at_once > 1:
                lines.append(f"if (u >= {f.units}) return;")
            for k in range(len(self._sums)):
                lines.append(f"float s{k}[{f.passes * f.vector}] = {{}};")
            if f.unit_rows == 1:
                lines += [f"const {f.word} r = u;", *self._head, *inside]
            else:
                last = f"(u + 1) * {f.unit_rows} < {f.rows} ? (u + 1) * {f.unit_rows} : {f.rows}"
                lines.append(f"const {f.word} end = {last};")
                lines += [f"for ({f.word} r = u * {f.unit_rows}; r < end; r++) {{", *self._head, *inside, "}"]
            lines += [*self._column_ends(has_partials), "}"]
        launches = [Launch("", (-(-f.units // f.at_once), f.tiles), f.block)]
        if has_partials:
            lines += self._second(self._parameters(has_partials))
            launches.append(Launch("_end", (-(-nest.columns // END_THREADS), 1), END_THREADS))
        partials = (4 * nest.columns * f.units,) * (len(self._sums) if has_partials else 0)
        aligned = tuple([k in self._promised for k in range(len(self._aligned))])
        return CudaKernel("\n".join(lines) + "\n", tuple(launches), partials, aligned)

    def _parameters(self, has_partials: bool) -> str:
        nest, found = self._nest, list[str]()
        for k, v in enumerate(nest.body.inputs):
            type = CUDA.types.get(v.dtype, "unsigned")
            found.append(f"const {type} *{'' if k in nest.op.over else '__restrict__ '}p{k}")
        found += [f"{CUDA.types[v.dtype]} *p{k}" for v, k in self._result.items()]
        if has_partials:
            found += [f"float *p{self._first_partial + k}" for k in range(len(self._sums))]
        return ", ".join(found)

    def _row_text(self) -> list[str]:
        nest, lines = self._nest, list[str]()
        for level in range(max(nest.level.values(), default=0) + 1):
            for node in nest.nodes:
                if nest.level[Value(node)] == level and nest.is_row(Value(node)) and not nest.is_reduction(node):
                    self._writer.lines = lines
                    self._terms[Value(node)] = self._printed(node, lines, {}, {})
                    self._store_row(node, lines)
            self._loop(level, lines)
        return lines

    def _store_row(self, node: Node, lines: list[str]) -> None:
        out = Value(node)
        if out in self._result:
            lines.append(f"if (lane == 0) p{self._result[out]}[r] = {_stored(self._terms[out].text, out.dtype)};")

    # ---- the loop over the elements of a row at one level

    def _loop(self, level: int, lines: list[str]) -> None:
        nest, f = self._nest, self._form
        nodes = [n for n in nest.nodes if nest.level[Value(n)] == level and not nest.is_row(Value(n))]
        reductions = [n for n in nest.nodes if nest.is_row_reduction(n) and nest.level[Value(n)] == level + 1]
        nodes = [n for n in nodes if n not in reductions and not nest.is_row_reduction(n)]
        if not nodes and not reductions:
            return
        before, inside, after = list[str](), list[str](), list[str]()
        local: dict[Value, Term] = {}
        loaded: dict[Access, Term] = {}
        self._before = before
        for node in nodes:
            if nest.is_column_sum(node):
                term = self._operand(node.inputs[0], node, inside, local, loaded)
                inside.append(f"s{self._sums.index(node)}[{self._slot()}] += {term.text};")
                continue
            self._writer.lines = inside
            local[Value(node)] = self._printed(node, inside, local, loaded)
            self._keep(node, level, local[Value(node)], inside, before, after)
        self._writer.lines = inside
        ends: list[str] = []
        for node in reductions:
            self._reduce(node, inside, local, loaded, lines, ends)
        lines += [*self._begin(), *before]
        lines += [
            "#pragma unroll",
            f"for (int k = 0; k < {f.vector}; k++) {{",
            *self._element_index(inside),
            *inside,
            "}",
        ]
        lines += [*after, "}", "}"]
        lines += ends
        for node in reductions:
            self._store_row(node, lines)

    def _begin(self) -> list[str]:
        """The loop over vectors: ``c`` is the first element of one."""
        f = self._form
        if self._is_flat:
            where = f"(({f.word})blockIdx.x * {f.threads} + threadIdx.x) * {f.vector}"
            return ["{", f"const {f.word} c = {where};", f"if (c < {f.inner}) {{"]
        if f.passes == 1:
            tile = f"({f.word})blockIdx.y * {f.threads} + " if f.tiles > 1 else ""
            head = ["{", "const int e = 0;", f"const {f.word} c = ({tile}lane) * {f.vector};"]
        else:
            head = ["#pragma unroll", f"for (int e = 0; e < {f.passes}; e++) {{"]
            head.append(f"const int c = (e * {f.threads} + lane) * {f.vector};")
        return [*head, f"if (c < {f.inner}) {{"]

    def _element_index(self, lines: Sequence[str]) -> list[str]:
        """The index of an element, if it is read; past the end of a flat kernel's arrays that of the last."""
        f = self._form
        if not any(re.search(r"\bi\b", line) for line in lines):
            return []
        if f.inner % f.vector:
            return [f"const {f.word} i = c + k < {f.inner} ? c + k : {f.inner - 1};"]
        return [f"const {f.word} i = c + k;"]

    def _slot(self) -> str:
        return f"e * {self._form.vector} + k"

    def _keep(self, node: Node, level: int, term: Term, inside: list[str], before: list[str], after: list[str]) -> None:
        """Write a result, and hold what later levels need."""
        nest, f, out = self._nest, self._form, Value(node)
        if any(nest.level[Value(user)] > level and not self._is_taken(user, level) for user in nest.users.get(out, [])):
            name = self._held[out] = f"b{len(self._held)}"
            self._head.append(f"{CUDA.local_type(out.dtype)} {name}[{f.passes * f.vector}];")
            inside.append(f"{name}[{self._slot()}] = {term.text};")
        if out in self._result:
            k, type = self._result[out], CUDA.types[out.dtype]
            before.append(f"Pack<{type}, {f.vector}> o{k};")
            inside.append(f"o{k}.x[k] = {_stored(term.text, out.dtype)};")
            row = "" if self._is_flat else f"r * {f.inner} + "
            end = f"_some(p{k} + c, o{k}, {f.inner} - c);" if f.inner % f.vector else f"(p{k} + {row}c, o{k});"
            after.append(f"store{end}")

    def _is_taken(self, user: Node, level: int) -> bool:
        """Whether a reduction takes its operand in the loop where that is made."""
        return self._nest.is_row_reduction(user) and self._nest.level[Value(user)] == level + 1

    def _reduce(
        self,
        node: Node,
        inside: list[str],
        local: dict[Value, Term],
        loaded: dict[Access, Term],
        lines: list[str],
        ends: list[str],
    ) -> None:
        f, out = self._form, Value(node)
        is_sum = isinstance(node.op, Sum)
        name = f"r{len(self._terms)}_{len(lines)}_{len(ends)}"
        lines.append(f"float {name} = {'0.0f' if is_sum else '-INFINITE'};")
        term = self._operand(node.inputs[0], node, inside, local, loaded)
        word = "Adds" if is_sum else "Larger"
        inside.append(f"{name} = {word}::of({name}, {term.text});")
        self._writer.lines = ends
        whole = f"of_row<{word}, {f.threads}>({name})"
        self._terms[out] = self._writer.local(whole, out.dtype, is_rounded=not is_sum)
        self._writer.lines = inside

    # ---- operands

    def _printed(self, node: Node, lines: list[str], local: dict[Value, Term], loaded: dict[Access, Term]) -> Term:
        if isinstance(node.op, RandomUniform):
            return self._drawn(node, node.op, lines)
        terms = [self._operand(v, node, lines, local, loaded) for v in node.inputs]
        return printed(node.op, self._writer, terms)

    def _operand(
        self, v: Value, node: Node, lines: list[str], local: dict[Value, Term], loaded: dict[Access, Term]
    ) -> Term:
        nest = self._nest
        source = nest.source(v)
        if isinstance(source.node.op, Constant):
            return constant(source.node.op.value, source.dtype, CUDA)
        if source in self._terms:
            return self._terms[source]
        if source in nest.number:
            access = nest.access[v, nest.shape_of_use(node)]
            if access.is_row or not any(self._inside(access)):
                return self._scalar(access)
            if access not in loaded:
                loaded[access] = self._element(access, lines)
            return loaded[access]
        if source not in local:
            local[source] = self._writer.local_in(lines, f"{self._held[source]}[{self._slot()}]", source.dtype)
        return local[source]

    def _scalar(self, access: Access) -> Term:
        """An operand that has one element for the row, read before its first loop."""
        found = self._scalars.get(access)
        if found is None:
            text = _loaded(f"p{access.number}[{self._row_offset(access) or '0'}]", access.dtype)
            found = self._scalars[access] = self._writer.local_in(self._head, text, access.dtype)
        return found

    def _inside(self, access: Access) -> list[int]:
        """The strides along the dimensions of one row."""
        return [s for unit, s in zip(self._nest.units, access.strides, strict=True) if unit < self._form.inner]

    def _element(self, access: Access, lines: list[str]) -> Term:
        """An element of an operand: of what was loaded at once, else by itself."""
        nest, f = self._nest, self._form
        row = self._row_offset(access)
        inner = [d for d in zip(nest.units, nest.sizes, access.strides, strict=True) if d[0] < f.inner]
        outer = [d[2] for d in zip(nest.units, nest.sizes, access.strides, strict=True) if d[0] >= f.inner]
        is_line = all(stride == unit for unit, _, stride in inner)
        is_together = f.inner % f.vector == 0 and (is_line or inner[0][1] % f.vector == 0)
        steps = [*([row] if row else []), self._index("c", inner)]
        if is_together and inner[0][2] == 0 and f.vector > 1:  # one element for all of the vector
            name = f"v{len(self._before)}_{access.number}"
            self._before.append(f"const {CUDA.types[access.dtype]} {name} = p{access.number}[{' + '.join(steps)}];")
            return self._writer.local_in(lines, _loaded(name, access.dtype), access.dtype)
        others = [*outer] if is_line else [*outer, *[d[2] for d in inner[1:]]]
        is_vector = inner[0][2] == 1 and self._aligned[access.number] and f.vector > 1
        is_vector = is_vector and all(stride % f.vector == 0 for stride in others) and (is_line or is_together)
        if not is_vector:
            steps[-1] = self._index("i", inner)
            text = f"p{access.number}[{' + '.join(steps)}]"
            return self._writer.local_in(lines, _loaded(text, access.dtype), access.dtype)
        self._promised.add(access.number)
        name, type = f"v{len(self._before)}_{access.number}", CUDA.types[access.dtype]
        where = f"p{access.number} + {' + '.join(steps)}"
        call = f"load<{type}, {f.vector}>({where})"
        if f.inner % f.vector:
            call = f"load_some<{type}, {f.vector}>({where}, {f.inner} - c)"
        self._before.append(f"const Pack<{type}, {f.vector}> {name} = {call};")
        return self._writer.local_in(lines, _loaded(f"{name}.x[k]", access.dtype), access.dtype)

    def _index(self, at: str, inner: Sequence[tuple[int, int, int]]) -> str:
        """Where an element of the row is, counted from the row's first."""
        if all(stride == unit for unit, _, stride in inner):
            return at
        steps: list[str] = []
        for unit, size, stride in inner:
            if stride:
                step = at if unit == 1 else f"{at} / {unit}"
                step = step if unit * size == self._form.inner else f"{step} % {size}"
                steps.append(step if stride == 1 else f"({step}) * ({stride})")
        return " + ".join(steps)

    def _row_offset(self, access: Access) -> str:
        nest, f = self._nest, self._form
        steps: list[str] = []
        for unit, size, stride in zip(nest.units, nest.sizes, access.strides, strict=True):
            if unit >= f.inner and stride:
                per = unit // f.inner
                step = "r" if per == 1 else f"r / {per}"
                step = step if unit * size == nest.op.size else f"({step}) % {size}"
                steps.append(f"({step}) * ({stride})")
        return " + ".join(steps)

    def _drawn(self, node: Node, op: RandomUniform, lines: list[str]) -> Term:
        """A random number of each element: by fours where the words of one counter fall on one vector."""
        f, k = self._form, self._nest.number[node.inputs[0]]
        key = f"q{op.stream}_{k}"
        line = f"const Words {key} = philox(p{k}[2], p{k}[3], {op.stream}u, 0, p{k}[0], p{k}[1]);"
        if line not in self._top:
            self._top.append(line)
        row = "" if self._is_flat else f"(unsigned long long)r * {f.inner} + "
        if f.vector % 4 == 0 and op.offset % 4 == 0 and (self._is_flat or f.inner % 4 == 0):
            name = f"v{len(self._before)}_{k}"
            self._before.append(
                f"const Pack<float, {f.vector}> {name} = uniform<{f.vector}>({key}, {row}c + {op.offset}ull);"
            )
            return self._writer.local_in(lines, f"{name}.x[k]", t.float32)
        return self._writer.local_in(lines, f"uniform<1>({key}, {row}i + {op.offset}ull).x[0]", t.float32)

    # ---- sums over columns

    def _column_ends(self, has_partials: bool) -> list[str]:
        """What a unit has added up goes to its partial sums, or is the result if there is one unit."""
        f, lines = self._form, list[str]()
        if not self._sums:
            return lines
        lines += self._begin()
        for k, node in enumerate(self._sums):
            out = Value(node)
            dtype = t.float32 if has_partials else out.dtype
            at = f"p{self._first_partial + k} + u * {f.inner} + c" if has_partials else f"p{self._result[out]} + c"
            lines += [f"Pack<{CUDA.types[dtype]}, {f.vector}> o{k};", "#pragma unroll"]
            lines.append(f"for (int k = 0; k < {f.vector}; k++) o{k}.x[k] = {_stored(f's{k}[{self._slot()}]', dtype)};")
            lines.append(f"store({at}, o{k});")
        return [*lines, "}", "}"]

    def _second(self, parameters: str) -> list[str]:
        """The kernel that adds up partial sums: a thread for each column."""
        f, n = self._form, self._nest.columns
        lines = [_head("KERNEL_end", END_THREADS, parameters)]
        lines += [f"const int c = blockIdx.x * {END_THREADS} + threadIdx.x;", f"if (c >= {n}) return;"]
        for k, node in enumerate(self._sums):
            out, partial = Value(node), self._first_partial + k
            lines += [f"float s{k} = 0.0f;", f"for (int u = 0; u < {f.units}; u++) s{k} += p{partial}[u * {n} + c];"]
            lines.append(f"p{self._result[out]}[c] = {_stored(f's{k}', out.dtype)};")
        return [*lines, "}"]


def _head(name: str, threads: int, parameters: str) -> str:
    return f'extern "C" __global__ void __launch_bounds__({threads}) {name}({parameters}) {{'


def _loaded(text: str, dtype: DType) -> str:
    """An element in memory as a local variable."""
    return f"{dtype.name}_load({text})" if dtype in CUDA.narrow else text


def _stored(text: str, dtype: DType) -> str:
    """A local variable as an element in memory."""
    return f"{dtype.name}_store({text})" if dtype in CUDA.narrow else text
