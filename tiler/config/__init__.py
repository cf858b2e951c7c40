"""Config: YAML -> frozen models, every mistake of a file told at once."""
