"""The compiler: a function as the client sent it becomes a plan that an executor runs. A pass is Graph -> Graph."""
