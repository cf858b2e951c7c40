"""Stand-ins for GPU packages, strict about what they are asked, for tests on machines without a GPU."""
