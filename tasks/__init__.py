"""The tasks: one folder each, the same files in each folder, none importing another."""
