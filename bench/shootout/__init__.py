"""The same training steps in telegrad, PyTorch and JAX, on the same cores, in turns.

`lines` is what is trained: shapes, initial weights and data. `modules` says it for telegrad and PyTorch, whose modules
have the same names, and `functions` for JAX. `peers` runs it in each way, each in a process of its own (`child`);
`turns` lets them take turns and asks before whether their losses agree; `memory` is a comparison of its own;
`report` makes the tables. `python -m bench.shootout --help` for the options.
"""
