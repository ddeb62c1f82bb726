"""Every op, and the functions over them. A new op is a class in one of these modules and nothing else.

The functions are written once over `telegrad.ir.value.Operators`: they take graph values in derivative rules
and tensors from users.
"""

from telegrad.ops import activation, control, elementwise, index, linalg, loss, norm, random, reduce, shape, softmax

_PUBLIC = {
    elementwise: """abs acos acosh add asin asinh astype atan atan2 atanh bitwise_and bitwise_invert bitwise_left_shift
        bitwise_or bitwise_right_shift bitwise_xor ceil clip copysign cos cosh divide equal erf exp expm1 floor
        floor_divide greater greater_equal hypot isfinite isinf isnan less less_equal log log10 log1p log2 logaddexp
        logical_and logical_not logical_or logical_xor maximum minimum multiply negative nextafter not_equal positive
        pow reciprocal relu remainder round sigmoid sign signbit sin sinh sqrt square subtract tan tanh trunc where""",
    reduce: """all any argmax argmin count_nonzero cumulative_prod cumulative_sum logsumexp max mean min prod std
        sum var""",
    shape: """broadcast_arrays broadcast_to concat empty_like expand_dims flatten flip full_like matrix_transpose
        moveaxis ones_like pad permute_dims repeat reshape roll squeeze stack tile tril triu unstack zeros_like""",
    linalg: "matmul outer tensordot vecdot",
    index: "argsort one_hot scatter_add sort take take_along_axis",
    softmax: "log_softmax softmax",
    control: "stop_gradient",
}

__all__ = [name for names in _PUBLIC.values() for name in names.split()]  # pyright: ignore[reportUnsupportedDunderAll]

for _module, _names in _PUBLIC.items():
    for _name in _names.split():
        globals()[_name] = getattr(_module, _name)
