"""A Plan and arrays in, arrays out: NumPy, and CuPy where there is a GPU."""
