"""What a command does, printing nothing: one module a command, and what several of them need."""
