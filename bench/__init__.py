"""What measures: one script a question. `scripts/bench` runs those that write RESULTS.md, others print a table."""
