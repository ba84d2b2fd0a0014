"""What would make a network faster on this NPU, and by how much."""
