"""Everything about bytes: messages, graphs and tensors to protobuf and back, statuses to exceptions."""
