"""The command line: through click, and as processes against real servers."""
