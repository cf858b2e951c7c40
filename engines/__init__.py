"""Engines: the models that tiler ships and what turns a model into something a runtime executes."""
