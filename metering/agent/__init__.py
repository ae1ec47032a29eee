"""The agent of a node with GPUs: reads their counters and sends them. It needs nothing of the service."""
