"""Who runs where: the gateway and its workers. A module for each idea; docs/cluster.md draws them."""
