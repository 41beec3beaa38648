"""The machine: cores, memory, huge pages, and libraries that write to the screen."""
