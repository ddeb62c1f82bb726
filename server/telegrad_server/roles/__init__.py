"""What a `telegrad-server` process can be, a module for each role: it wires the parts together, and nothing more."""
