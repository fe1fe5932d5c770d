"""What packets prove: SYNs as a namespace's devices see them, and which were lost on the way."""
