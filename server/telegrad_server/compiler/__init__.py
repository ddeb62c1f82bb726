"""Function to Plan: a list of passes, graph to graph, then the plan."""
